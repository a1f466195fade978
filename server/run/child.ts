/**
 * One process of several under a parent: a storage server, a proxy or an etcd, as its parent says in its first message.
 * Invariant: it ends when its parent does, when it is told to, and when its disk failed or a law of ours was broken; in the last case without
 * another word to anybody.
 */
import { isKvError, type KvErrorCode } from '../../core/kv/errors.ts'
import type { Policy } from '../proxy/policy.ts'
import { runEtcd, type EtcdSettings } from './etcd-process.ts'
import { faultFields, openLog, silentLog, type Log, type LogFields } from './log.ts'
import { openProcess } from './process.ts'
import type { ProcessRole, Settings } from './settings.ts'

export type ChildSettings =
  | {
      readonly role: ProcessRole
      readonly settings: Settings
      readonly version: string
      readonly policy?: Policy | undefined
      /** `lines`: a log of its own on stderr. `parent`: what is wrong is told to the parent alone. */
      readonly log: 'lines' | 'parent'
    }
  | ({ readonly role: 'etcd' } & EtcdSettings)

/** What a child says to its parent. */
export type FromChild =
  /** It hears now: what a process of node:cluster is told before is lost. */
  | { readonly type: 'hello' }
  | { readonly type: 'listening'; readonly address: string; readonly admin?: string | undefined; readonly pid: number }
  | { readonly type: 'readiness'; readonly why?: string | undefined }
  | { readonly type: 'alarm'; readonly text: string }
  /** It cannot start as it is: the parent has to know more than that it ended. */
  | { readonly type: 'refused'; readonly code: KvErrorCode; readonly message: string; readonly hint: string }

/** What a process ends with when its disk failed, or a law of our own was broken. */
export const failureStatus = 70

const say = (message: FromChild): void => void process.send?.(message)

function fail(error: unknown): never {
  process.stderr.write(`${error instanceof Error ? (error.stack ?? error.message) : String(error)}\n`)
  process.exit(failureStatus)
}

/** Of a child whose parent speaks for it. */
function tellingLog(name: string): Log {
  const alarm = (event: string, { what = event }: LogFields = {}): void => say({ type: 'alarm', text: `${name}: ${what}` })
  return { ...silentLog, warn: (event, fields) => (event === 'not-ready' ? undefined : alarm(event, fields)), error: alarm }
}

async function run(asked: ChildSettings): Promise<void> {
  let end = async (): Promise<void> => undefined
  let isEnding = false
  const leave = (): void => {
    if (isEnding) return
    isEnding = true
    end().then(() => process.exit(0), fail)
  }
  process.on('SIGTERM', leave)
  process.on('SIGINT', () => undefined) // the parent hears it too, and says what follows
  process.on('disconnect', leave)
  try {
    if (asked.role === 'etcd') {
      const { address, pid, close } = await runEtcd(asked, fail)
      end = close
      say({ type: 'listening', address, pid })
      return say({ type: 'readiness' })
    }
    const { role, settings, version, policy } = asked
    const name = settings.name ?? role
    const write = (line: string): void => void process.stderr.write(line)
    const log =
      asked.log === 'lines'
        ? await openLog({ level: settings['log.level'], base: { role, name, pid: process.pid }, write })
        : tellingLog(name)
    const running = await openProcess({
      role,
      settings,
      version,
      policy,
      log,
      onReadiness: (why) => say({ type: 'readiness', why }),
      onFailure(error) {
        log.error('failure', faultFields(error))
        if (asked.log === 'lines' && settings['log.level'] !== 'off') process.exit(failureStatus)
        fail(error)
      },
    })
    end = () => running.close()
    say({ type: 'listening', address: running.address, admin: running.admin, pid: process.pid })
  } catch (error) {
    if (!isKvError(error)) fail(error)
    const { code, id, message, hint } = error
    const text = message.replace(`${id} `, '')
    // It has to be with the parent before this ends.
    process.send?.({ type: 'refused', code, message: text, hint } satisfies FromChild, undefined, {}, () => process.exit(1))
  }
}

/** Asks its parent what it is to be, and is it. */
export function runChild(): void {
  process.once('message', (asked: ChildSettings) => void run(asked).catch(fail))
  say({ type: 'hello' })
}
