/**
 * A proxy before a Redis server that loses what a network can lose: requests, answers, connections.
 * Invariant: nothing is lost unless the test says so, and `close` leaves no socket.
 */
import { createServer, connect, type AddressInfo, type Socket } from 'node:net'

export interface RedisProxy {
  readonly port: number
  /** From now on requests do not arrive, or answers do not: until `cut`. */
  drop(what: 'requests' | 'answers'): void
  /** Ends all connections; `refuse`: new ones are refused until `accept`. */
  cut(refuse?: boolean): void
  accept(): Promise<void>
  /** Resolves when the server has answered something that was dropped. */
  dropped(): Promise<void>
  close(): Promise<void>
}

export async function redisProxy(target: number): Promise<RedisProxy> {
  const sockets = new Set<Socket>()
  let dropping: 'requests' | 'answers' | undefined
  let onDropped: () => void = () => undefined
  const pipe = (from: Socket, to: Socket, what: 'requests' | 'answers'): void => {
    sockets.add(from)
    from.on('data', (chunk) => {
      if (dropping !== what) to.write(chunk)
      else onDropped()
    })
    from.on('error', () => undefined)
    from.on('close', () => {
      sockets.delete(from)
      to.destroy()
    })
  }
  const server = createServer((socket) => {
    const onward = connect(target, '127.0.0.1')
    pipe(socket, onward, 'requests')
    pipe(onward, socket, 'answers')
  })
  const listen = (at: number): Promise<void> => new Promise((resolve) => server.listen(at, '127.0.0.1', resolve))
  await listen(0)
  const { port } = server.address() as AddressInfo
  return {
    port,
    drop: (what) => (dropping = what),
    cut(refuse = false) {
      if (refuse) server.close()
      dropping = undefined
      for (const socket of sockets) socket.destroy()
    },
    accept: () => listen(port),
    dropped: () => new Promise((resolve) => (onDropped = resolve)),
    async close() {
      for (const socket of sockets) socket.destroy()
      await new Promise((resolve) => server.close(resolve))
    },
  }
}
