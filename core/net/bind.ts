/**
 * Gives a server its address.
 * Invariant: a Unix socket is open to the user of this process alone, from its first moment on.
 */
import { lstatSync, rmSync } from 'node:fs'
import { createConnection, type AddressInfo, type Server } from 'node:net'
import type { Address } from './address.ts'

/** Resolves, when it listens, with where: port 0 has become a number. Rejects with the error of Node. */
export async function bind(server: Server, address: Address): Promise<Address> {
  if ('path' in address) await removeStale(address.path)
  await listen(server, address)
  const bound = server.address() as AddressInfo | string
  return typeof bound === 'string' ? { path: bound } : { host: bound.address, port: bound.port }
}

function listen(server: Server, address: Address): Promise<void> {
  return new Promise<void>((resolve, reject) => {
    const onError = (error: Error): void => reject(error)
    server.once('error', onError)
    const onListening = (): void => {
      server.off('error', onError)
      resolve()
    }
    if ('host' in address) return void server.listen(address.port, address.host, onListening)
    // Only the user of this process may connect. The name is made within the call, so nobody sees it with other rights.
    const mask = process.umask(0o177)
    try {
      server.listen(address.path, onListening)
    } finally {
      process.umask(mask)
    }
  })
}

/** A process that was killed leaves the name of its socket. It is removed when nobody answers there. */
function removeStale(path: string): Promise<void> {
  return new Promise<void>((resolve) => {
    const socket = createConnection({ path })
    socket.once('connect', () => (socket.destroy(), resolve()))
    socket.once('error', (error: NodeJS.ErrnoException) => {
      // A file that is no socket refuses, too: it is somebody's, and stays.
      if (error.code === 'ECONNREFUSED' && lstatSync(path, { throwIfNoEntry: false })?.isSocket() === true) rmSync(path, { force: true })
      resolve()
    })
  })
}
