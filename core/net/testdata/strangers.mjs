// Opens many connections, sends the same bytes on each, and keeps them. Tells its parent how many are open, and how many have been closed by the other side.
import { createConnection } from 'node:net'

const [port, count, hex] = process.argv.slice(2)
const bytes = Buffer.from(hex, 'hex')
let connected = 0
let closed = 0
for (let at = 0; at < Number(count); at++) {
  const socket = createConnection({ port: Number(port), host: '127.0.0.1' }, () => {
    if (bytes.byteLength > 0) socket.write(bytes)
    connected++
    if (connected === Number(count)) process.send({ connected })
  })
  socket.on('error', () => undefined)
  socket.on('end', () => socket.destroy())
  socket.on('close', () => {
    closed++
    if (closed === Number(count)) process.send({ closed })
  })
}
