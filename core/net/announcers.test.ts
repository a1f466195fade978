/**
 * What a stranger costs that goes on after its hello, as far as the head of a certificate message, which says how long the rest will be.
 * Why a file of its own: memory that others gave back would be taken again, and not be counted.
 */
import { fork, type ChildProcess } from 'node:child_process'
import { once } from 'node:events'
import { connect } from 'node:tls'
import { fileURLToPath } from 'node:url'
import { setFlagsFromString } from 'node:v8'
import { runInNewContext } from 'node:vm'
import { expect, test } from 'vitest'
import { Listener, listenerLimits } from './listener.ts'
import { Folder, makeAuthority, makeCertificate } from './testdata/certificates.ts'
import { frameCodec, type Frame } from './testdata/frame.ts'
import { until } from './testdata/until.ts'
import { Credentials } from './tls.ts'

const announcers = 300
/** As much as a stranger may cost, when all that may be are there. */
const strangerBytesMax = 65_536
const announcerBytesMax = 163_840
/** Of one that has not said hello: strangers.test.ts. */
const silentBytesMax = 5_120

setFlagsFromString('--expose-gc')
const collect = runInNewContext('gc') as () => void
/** Memory of this process. JavaScript may give some of its own back meanwhile: then less is measured than was taken, never more. */
function resident(): number {
  collect()
  return process.memoryUsage().rss
}

test(`${announcers} strangers that tell of a certificate of 98 KB are within what all strangers may cost`, async () => {
  const folder = new Folder()
  const authority = await makeAuthority()
  const credentials = await Credentials.open(folder.write('p', [authority], await makeCertificate(authority)))
  const hosts = Array.from({ length: 3_000 }, (_, at) => `${at}.name-of-a-host.example.org`)
  const large = folder.write('large', [authority], await makeCertificate(authority, { dns: hosts }))
  const { cert, key } = await makeCertificate(authority, { uris: ['spiffe://hapax/client/shop'] })
  const honest = { cert, key }
  const listener = await Listener.open<Frame, Frame>({
    address: { host: '127.0.0.1', port: 0 },
    security: { credentials, roles: ['client'] },
    codec: frameCodec,
    onRequest: () => expect.unreachable('a stranger was served'),
    limits: { handshakesMax: announcers + 1, handshakeMs: 60_000 },
  })
  const crowds: ChildProcess[] = []
  const gather = async (count: number): Promise<void> => {
    const { port } = listener.address as { port: number }
    const script = fileURLToPath(new URL('testdata/announcers.mjs', import.meta.url))
    const crowd = fork(script, [String(port), String(count), large.cert, large.key], { execArgv: [] })
    crowds.push(crowd)
    expect(((await once(crowd, 'message')) as [unknown])[0]).toEqual({ connected: count })
    // Whoever comes after them is let in after what they sent has been read.
    const client = connect({ port, host: '127.0.0.1', ...honest, ca: authority.cert, servername: 'localhost' }).on('error', () => undefined)
    await until(() => listener.stats.peers === 1)
    client.destroy()
    await until(() => listener.stats.peers === 0)
  }
  try {
    // The first round warms up: code, tables, arenas of the allocator.
    await gather(10)
    const before = resident()
    await gather(announcers - 10)
    expect(listener.stats).toMatchObject({ strangers: announcers, untrusted: 0 })
    const each = (resident() - before) / (announcers - 10)
    console.log(`a stranger that tells of a large certificate costs ${(each / 1024).toFixed(1)} KiB`)
    expect(each).toBeLessThan(announcerBytesMax)
    const { strangersMax, handshakesMax } = listenerLimits
    const most = handshakesMax * announcerBytesMax + (strangersMax - handshakesMax) * silentBytesMax
    expect(most).toBeLessThanOrEqual(strangersMax * strangerBytesMax)
  } finally {
    for (const crowd of crowds) crowd.kill('SIGKILL')
    await until(() => listener.stats.strangers === 0)
    await listener.close(0)
    await credentials.close()
    folder.remove()
  }
})
