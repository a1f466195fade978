/**
 * Runs a command in a process group of its own, with a time box.
 * Invariant: when run() has answered, no process of that group is left.
 * Why a group: a killed test runner would leave its workers and their servers behind.
 */
import { spawn } from 'node:child_process'

/** What a process gets to end by itself after SIGTERM. */
const graceMs = 2_000

/** Sends to the whole group. @returns whether anybody was there to get it */
function signalGroup(pid, signal) {
  try {
    process.kill(-pid, signal)
    return true
  } catch {
    return false
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
 * @returns {Promise<{ code: number | null, timedOut: boolean, leftBehind: boolean }>}
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
    const end = (code) => {
      clearTimeout(box)
      clearTimeout(killTimer)
      killCurrent = () => {}
      const leftBehind = child.pid !== undefined && signalGroup(child.pid, 'SIGKILL')
      resolve({ code, timedOut, leftBehind })
    }
    child.on('error', () => end(null))
    child.on('exit', (code) => end(code))
  })
}
