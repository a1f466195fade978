/**
 * Runs a command in a process group of its own, with a time box.
 * Invariant: when run() has answered, no process of that group is alive; those that had to be killed for it are named.
 * Why a group: a killed test runner would leave its workers and their servers behind.
 */
import { spawn } from 'node:child_process'
import { readdirSync, readFileSync } from 'node:fs'

/** What a process gets to end by itself: after SIGTERM, and after the command that started it (a compiler's service reads the end of its input). */
const graceMs = 2_000
const lookEveryMs = 10
const shownMax = 300

/** Sends to the whole group. @returns whether anybody was there to get it */
function signalGroup(pid, signal) {
  try {
    process.kill(-pid, signal)
    return true
  } catch {
    return false
  }
}

/**
 * Who of a process group is alive, as pid and command line. A zombie is not: it has ended, and waits for whoever started it,
 * or for the system's first process when that one has ended as well; some look only once a second, and a signal to a zombie succeeds.
 * Linux alone can name them; elsewhere the group itself is named.
 */
export function livingOf(group) {
  if (process.platform !== 'linux') return signalGroup(group, 0) ? [`somebody of process group ${group}`] : []
  const living = []
  for (const pid of readdirSync('/proc')) {
    if (!/^\d+$/.test(pid)) continue
    try {
      const stat = readFileSync(`/proc/${pid}/stat`, 'latin1')
      // pid (name) state parent group ...; the name may hold spaces and brackets.
      const nameEnd = stat.lastIndexOf(')')
      const [state, , itsGroup] = stat.slice(nameEnd + 2).split(' ')
      if (Number(itsGroup) !== group || state === 'Z' || state === 'X') continue
      const command = readFileSync(`/proc/${pid}/cmdline`, 'utf8').replaceAll('\0', ' ').trim()
      living.push(`${pid} ${command === '' ? stat.slice(stat.indexOf('('), nameEnd + 1) : command}`.slice(0, shownMax))
    } catch {
      // It has gone meanwhile.
    }
  }
  return living
}

/** Waits for the end of a group, for a while. @returns who is still alive */
async function afterGrace(group) {
  const untilMs = performance.now() + graceMs
  for (;;) {
    const living = livingOf(group)
    if (living.length === 0 || performance.now() >= untilMs) return living
    await new Promise((wake) => setTimeout(wake, lookEveryMs))
  }
}

/** Kills the group that is running, if any: for the signals that this process gets. */
let killCurrent = () => {}
for (const [signal, code] of [
  ['SIGINT', 130],
  ['SIGTERM', 143],
  ['SIGHUP', 129],
]) {
  process.on(signal, () => {
    killCurrent()
    process.exit(code)
  })
}

/**
 * @param {{ command: string, args: string[], cwd: string, env: object, boxMs: number }} options
 * @returns {Promise<{ code: number | null, timedOut: boolean, leftBehind: string[] }>}
 */
export function run({ command, args, cwd, env, boxMs }) {
  return new Promise((resolve) => {
    const child = spawn(command, args, { cwd, env, detached: true, stdio: ['ignore', 'inherit', 'inherit'] })
    let timedOut = false
    let killTimer
    const box = setTimeout(() => {
      timedOut = true
      signalGroup(child.pid, 'SIGTERM')
      killTimer = setTimeout(() => signalGroup(child.pid, 'SIGKILL'), graceMs)
    }, boxMs)
    killCurrent = () => signalGroup(child.pid, 'SIGKILL')
    const end = async (code) => {
      clearTimeout(box)
      clearTimeout(killTimer)
      const leftBehind = child.pid === undefined ? [] : await afterGrace(child.pid)
      if (leftBehind.length > 0) {
        signalGroup(child.pid, 'SIGKILL')
        await afterGrace(child.pid)
      }
      killCurrent = () => {}
      resolve({ code, timedOut, leftBehind })
    }
    child.on('error', () => end(null))
    child.on('exit', (code) => end(code))
  })
}
