/**
 * How often a library called the server, by the server's own count (INFO commandstats).
 * Invariant: a command that a script ran inside the server is no call. The server tells which commands come from clients (MONITOR), once.
 */
import { once } from 'node:events'
import { connect } from 'node:net'

/** Commands that this file itself sends. */
const own = new Set(['info', 'monitor', 'client', 'ping', 'select', 'hello'])

async function stats(admin) {
  const text = await admin.info('commandstats')
  const calls = new Map()
  for (const [, name, count] of text.matchAll(/^cmdstat_([^|:]+)[^:]*:calls=(\d+)/gm))
    calls.set(name, (calls.get(name) ?? 0) + Number(count))
  return calls
}

/** What MONITOR says until it is ended. Over a socket of its own: a client library takes lines for answers while others connect. */
async function monitoring(port) {
  const socket = connect(port, '127.0.0.1')
  let said = ''
  socket.on('data', (chunk) => (said += chunk))
  const until = async (text) => {
    while (!said.includes(text)) await once(socket, 'data')
  }
  socket.write('MONITOR\r\n')
  await until('+OK')
  return {
    until,
    end() {
      socket.destroy()
      return [...said.matchAll(/^\+[\d.]+ \[\d+ (\S+)\] "([^"]+)"/gm)].map(([, source, name]) => [source, name.toLowerCase()])
    },
  }
}

/**
 * Which commands come from clients while `work` runs.
 * @throws Error when one of them is also run by a script: then commandstats cannot tell them apart.
 */
export async function commandsSent(server, admin, work) {
  const monitor = await monitoring(server.port)
  await work()
  await admin.ping('the-work-is-done')
  await monitor.until('the-work-is-done')
  const lines = monitor.end()
  const of = (isScript) =>
    new Set(lines.filter(([source, name]) => (source === 'lua') === isScript && !own.has(name)).map(([, name]) => name))
  const [sent, inScripts] = [of(false), of(true)]
  const both = [...sent].filter((name) => inScripts.has(name))
  if (both.length > 0) throw new Error(`${both.join(', ')} is sent and run by scripts: calls cannot be counted`)
  return [...sent]
}

/** @returns a function that gives the calls of these commands since the last time it was asked. */
export async function callsOf(admin, commands) {
  const total = async () => {
    const seen = await stats(admin)
    return commands.reduce((sum, name) => sum + (seen.get(name) ?? 0), 0)
  }
  let last = await total()
  return async () => {
    const now = await total()
    const since = now - last
    last = now
    return since
  }
}

/** Bytes that the server holds for its data. */
export const usedMemory = async (admin) => Number(/^used_memory:(\d+)/m.exec(await admin.info('memory'))[1])
