/**
 * How often a library called the server, by the server's own count (INFO commandstats).
 * Invariant: a command that a script ran inside the server is no call. The server tells which commands come from clients (MONITOR), once.
 */

/** Commands that this file itself sends. */
const own = new Set(['info', 'monitor', 'client', 'ping', 'select', 'hello'])

async function stats(admin) {
  const text = await admin.info('commandstats')
  const calls = new Map()
  for (const [, name, count] of text.matchAll(/^cmdstat_([^|:]+)[^:]*:calls=(\d+)/gm))
    calls.set(name, (calls.get(name) ?? 0) + Number(count))
  return calls
}

/**
 * Which commands come from clients while `work` runs.
 * @throws Error when one of them is also run by a script: then commandstats cannot tell them apart.
 */
export async function commandsSent(admin, work) {
  const monitor = await admin.monitor()
  const [sent, inScripts] = [new Set(), new Set()]
  monitor.on('monitor', (_time, [name], source) => (source === 'lua' ? inScripts : sent).add(name.toLowerCase()))
  await work()
  await new Promise((resolve) => setTimeout(resolve, 20))
  monitor.disconnect()
  const both = [...sent].filter((name) => inScripts.has(name) && !own.has(name))
  if (both.length > 0) throw new Error(`${both.join(', ')} is sent and run by scripts: calls cannot be counted`)
  return [...sent].filter((name) => !own.has(name))
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
