// Opens many connections, does the handshake as far as the head of the certificate message, which says how long it is, and stops there.
// Tells its parent how many have come so far. The certificate goes in records of 512 bytes, so that its beginning can be sent without the rest.
import { readFileSync } from 'node:fs'
import { createConnection } from 'node:net'
import { Duplex } from 'node:stream'
import { connect } from 'node:tls'

const [port, count, certPath, keyPath] = process.argv.slice(2)
const cert = readFileSync(certPath)
const key = readFileSync(keyPath)
const recordBytes = 512
/** A record that closes the middlebox's eyes, and two whole ones of the certificate. */
const sentBytesMax = 1_200
let connected = 0
for (let at = 0; at < Number(count); at++) {
  const socket = createConnection({ port: Number(port), host: '127.0.0.1' })
  socket.on('error', () => undefined)
  let isHello = true
  let left = sentBytesMax
  const cut = new Duplex({
    read: () => undefined,
    write(bytes, _, done) {
      const part = isHello ? bytes : bytes.subarray(0, left)
      if (!isHello && left > 0) {
        left -= part.byteLength
        const isLast = left === 0
        socket.write(part, () => isLast && ++connected === Number(count) && process.send({ connected }))
      } else if (isHello) socket.write(part)
      isHello = false
      done()
    },
  })
  socket.on('data', (bytes) => cut.push(bytes))
  const client = connect({ socket: cut, cert, key, rejectUnauthorized: false, servername: 'localhost', minVersion: 'TLSv1.3' })
  client.setMaxSendFragment(recordBytes)
  client.on('error', () => undefined)
}
