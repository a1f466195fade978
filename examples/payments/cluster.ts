/**
 * The shop's store as a cluster of real processes on this machine, and what the page may do to them (`npm start -- --cluster`).
 * Invariant: what is stopped or slowed goes on by itself, and what is killed comes back: nothing has to be repaired by hand.
 * Why signals and no switches in the servers: what is killed here dies as it would at night.
 */
import { join } from 'node:path'
import { startDev, type DevCluster } from 'hapax/server'
import type { DemoEvent } from './channel.ts'

/** kill: SIGKILL. stop: it hears nothing for a while, its connections stay open. slow: it works a fifth of the time. */
export const attacks = ['kill', 'stop', 'slow'] as const
export type Attack = (typeof attacks)[number]

export interface Member {
  readonly name: string
  readonly role: 'storage' | 'proxy'
  readonly pid: number
  readonly address: string
  readonly state: 'serving' | 'down' | 'stopped' | 'slow'
}

export interface Cluster {
  /** For `connect`. */
  readonly url: string
  members(): readonly Member[]
  /** @returns false: there is no such process, or something is being done to it already */
  attack(name: string, how: Attack): boolean
  close(): Promise<void>
}

const limits = {
  /** How long a process stays stopped or slow. */
  troubleMs: 5_000,
  /** The rhythm of a slow one. */
  sleepsMs: 200,
  worksMs: 50,
} as const

export async function openCluster(dir: string, log: (event: DemoEvent) => void): Promise<Cluster> {
  const say = (what: string, detail: string): void =>
    log({ at: Date.now(), from: 'cluster', what, detail, code: 'examples/payments/cluster.ts' })
  const dev: DevCluster = await startDev({ dir: join(dir, 'cluster'), onAlarm: (text) => say('alarm', text) })
  /** What is being done to a process, by its name, and how to end it. */
  const troubles = new Map<string, { readonly state: 'stopped' | 'slow'; readonly timers: Set<NodeJS.Timeout> }>()
  const down = new Set<string>()

  const members = (): readonly Member[] =>
    dev.processes.map(({ name, role, pid, address, isReady }) => {
      if (!isReady) down.add(name)
      else if (down.delete(name)) say('serves again', `${name}, pid ${pid}`)
      return { name, role, pid, address, state: isReady ? (troubles.get(name)?.state ?? 'serving') : 'down' }
    })
  const end = (name: string): void => {
    const trouble = troubles.get(name)
    if (trouble === undefined) return
    for (const timer of trouble.timers) clearTimeout(timer)
    troubles.delete(name)
    dev.signal(name, 'SIGCONT')
    say('goes on', name)
  }
  const hold = (name: string, state: 'stopped' | 'slow'): void => {
    const timers = new Set<NodeJS.Timeout>()
    const later = (ms: number, what: () => void): void => {
      const timer = setTimeout(() => {
        timers.delete(timer)
        what()
      }, ms)
      timers.add(timer)
    }
    const sleep = (): void => {
      dev.signal(name, 'SIGSTOP')
      if (state === 'slow') later(limits.sleepsMs, work)
    }
    const work = (): void => {
      dev.signal(name, 'SIGCONT')
      later(limits.worksMs, sleep)
    }
    troubles.set(name, { state, timers })
    later(limits.troubleMs, () => end(name))
    sleep()
  }
  return {
    url: dev.url,
    members,
    attack(name, how) {
      const member = members().find((one) => one.name === name)
      if (member === undefined || member.state !== 'serving') return false
      say({ kill: 'killed', stop: 'stopped', slow: 'slowed down' }[how], `${name}, pid ${member.pid}`)
      if (how === 'kill') {
        dev.signal(name, 'SIGKILL')
        down.add(name)
      } else hold(name, how === 'stop' ? 'stopped' : 'slow')
      return true
    },
    async close() {
      for (const name of troubles.keys()) end(name)
      await dev.close()
    },
  }
}
