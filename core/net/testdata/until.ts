import { once } from 'node:events'
import { createServer, type AddressInfo, type Server, type Socket } from 'node:net'
import { setImmediate as turn } from 'node:timers/promises'
import type { Address } from '../address.ts'

/** Lets the event loop turn until something holds: an event is waited for, never a time. The test's own time box ends it. */
export async function until(holds: () => boolean): Promise<void> {
  while (!holds()) await turn()
}

/** A server on loopback that does what a test says to each socket. */
export interface Rough {
  readonly address: Extract<Address, { host: string }>
  readonly sockets: Socket[]
  close(): Promise<void>
}
export async function rough(onSocket: (socket: Socket) => void, port = 0, host = '127.0.0.1'): Promise<Rough> {
  const sockets: Socket[] = []
  const server: Server = createServer({ allowHalfOpen: true }, (socket) => {
    sockets.push(socket)
    socket.on('error', () => undefined)
    onSocket(socket)
  })
  server.listen(port, host)
  await once(server, 'listening')
  return {
    address: { host: '127.0.0.1', port: (server.address() as AddressInfo).port },
    sockets,
    async close() {
      const closed = new Promise<void>((resolve) => server.close(() => resolve()))
      for (const socket of sockets) socket.destroy()
      await closed
    },
  }
}
