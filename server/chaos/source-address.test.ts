/** Who dials is known by the address that is dialled from. */
import { once } from 'node:events'
import { connect, createServer, type AddressInfo, type Socket } from 'node:net'
import { expect, test } from 'vitest'

test.skipIf(process.platform !== 'linux')('a process dials the loopback from an address of its own', async () => {
  process.env['CHAOS_SOURCE'] = '127.0.1.9'
  await import('./source-address.ts')
  const server = createServer()
  server.listen(0, '127.0.0.1')
  await once(server, 'listening')
  const arrived = once(server, 'connection')
  const socket = connect((server.address() as AddressInfo).port, '127.0.0.1')
  const [there] = (await arrived) as [Socket]
  expect(there.remoteAddress).toBe('127.0.1.9')
  socket.destroy()
  there.destroy()
  server.close()
})
