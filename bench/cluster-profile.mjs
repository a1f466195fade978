/**
 * Where the CPU time of servers goes, from the profiles that Node writes.
 * Invariant: the shares of a table are of the time that was busy, and what is left out of the text is in its last line.
 */
import { rmSync } from 'node:fs'
import { relative } from 'node:path'
import { fileURLToPath } from 'node:url'
import { distUrl } from './harness.mjs'

const root = fileURLToPath(distUrl)
const functionsMax = 25
const idle = new Set(['(idle)', '(root)', '(program)'])

/** A part of the house, of the file of a function. */
function roomOf({ functionName, url }) {
  if (functionName === '(garbage collector)') return 'garbage collector'
  if (url.startsWith('file:')) {
    const path = relative(root, fileURLToPath(url))
    return path.includes('node_modules')
      ? path.split('node_modules/').at(-1).split('/').slice(0, 2).join('/')
      : path.split('/').slice(0, 2).join('/')
  }
  return url.startsWith('node:') ? 'Node' : `native: ${functionName || 'unnamed'}`
}

/** Busy microseconds by function of several profiles. */
function timesOf(profiles) {
  const times = new Map()
  for (const { nodes, samples, timeDeltas } of profiles) {
    const frames = new Map(nodes.map(({ id, callFrame }) => [id, callFrame]))
    samples.forEach((id, index) => {
      const frame = frames.get(id)
      if (idle.has(frame.functionName)) return
      const key = `${frame.functionName || '(anonymous)'} ${frame.url}:${frame.lineNumber + 1}`
      const known = times.get(key) ?? { frame, us: 0 }
      known.us += timeDeltas[index]
      times.set(key, known)
    })
  }
  return [...times.values()]
}

/** @returns rows by room and by function, of the profiles of one role; the greatest first */
export function whereItGoes(profiles) {
  const times = timesOf(profiles)
  const all = times.reduce((sum, { us }) => sum + us, 0)
  const rooms = new Map()
  for (const { frame, us } of times) rooms.set(roomOf(frame), (rooms.get(roomOf(frame)) ?? 0) + us)
  const share = (us) => (100 * us) / all
  const byRoom = [...rooms].map(([name, us]) => ({ name, share: share(us) })).sort((a, b) => b.share - a.share)
  const byFunction = times
    .map(({ frame, us }) => ({ name: `${frame.functionName || '(anonymous)'}`, kind: whereIs(frame), share: share(us) }))
    .sort((a, b) => b.share - a.share)
    .slice(0, functionsMax)
  return { byRoom: byRoom.filter(({ share: part }) => part >= 0.5), byFunction }
}

function whereIs({ url, lineNumber }) {
  if (!url.startsWith('file:')) return url
  return `${relative(root, fileURLToPath(url)).split('node_modules/').at(-1)}:${lineNumber + 1}`
}

export const forget = (folder) => rmSync(folder, { recursive: true, force: true })
