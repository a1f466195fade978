/**
 * A MODEL of a register by two-phase commit over all replicas, for one key, as textbooks have it; it is no product.
 * Pure. Why it is here: it is what people reach for first. Every write locks all replicas and commits at all of them, or at none.
 *
 * `any`: a read takes what one replica has, committed or about to be overwritten: between two commits it shows the new value and then
 * the old one. `free`: a replica that is locked shows nothing, and the read is refused; that is right as long as nobody fails, and
 * one proxy that dies between its phases locks the key, for reads too, for ever. There is no timer that could end a lock: whoever
 * releases it alone may undo half a commit.
 */
import type { CallAnswer, Shown, Value } from '../history.ts'
import type { Peer, PeerPorts, PeerProxy, PeerRequest, PeerServer } from './peer.ts'

interface Committed {
  readonly value: Value
  readonly version: number
  readonly createdAt: number
  readonly writtenBy: string
}
export type TwoPhaseMessage =
  | { readonly type: 'prepare' | 'read' | 'abort'; readonly id: string }
  | { readonly type: 'commit'; readonly id: string; readonly record: Committed | undefined }
  | { readonly type: 'prepared' | 'shown'; readonly id: string; readonly isLocked: boolean; readonly record: Committed | undefined }
  | { readonly type: 'committed'; readonly id: string }

const versionText = ({ version, writtenBy }: Committed): string => `${version} ${writtenBy}`
const shownOf = (record: Committed): Shown => ({ value: record.value, version: versionText(record), createdAt: record.createdAt })

class TwoPhaseServer implements PeerServer<TwoPhaseMessage> {
  readonly #ports: PeerPorts<TwoPhaseMessage>
  #record: Committed | undefined
  #lockedFor: string | undefined

  constructor(ports: PeerPorts<TwoPhaseMessage>) {
    this.#ports = ports
  }

  receive(from: string, message: TwoPhaseMessage): void {
    const { id } = message
    const isLocked = this.#lockedFor !== undefined
    switch (message.type) {
      case 'read':
        return this.#ports.send(from, { type: 'shown', id, isLocked, record: this.#record })
      case 'prepare':
        this.#lockedFor ??= id
        return this.#ports.send(from, { type: 'prepared', id, isLocked, record: this.#record })
      case 'commit':
        this.#record = message.record
        this.#lockedFor = undefined
        return this.#ports.send(from, { type: 'committed', id })
      case 'abort':
        if (this.#lockedFor === id) this.#lockedFor = undefined
    }
  }

  wake(): void {}
}

interface Asking {
  readonly request: PeerRequest
  readonly answer: (answer: CallAnswer) => void
  readonly answers: Map<string, TwoPhaseMessage & { type: 'prepared' | 'shown' }>
  outcome: CallAnswer | undefined
  committed: number
}

class TwoPhaseProxy implements PeerProxy<TwoPhaseMessage> {
  readonly #ports: PeerPorts<TwoPhaseMessage>
  readonly #servers: readonly string[]
  readonly #reads: 'any' | 'free'
  readonly #asking = new Map<string, Asking>()
  #turn = 0

  constructor(ports: PeerPorts<TwoPhaseMessage>, servers: readonly string[], reads: 'any' | 'free') {
    this.#ports = ports
    this.#servers = servers
    this.#reads = reads
  }

  request(request: PeerRequest, _now: number, answer: (answer: CallAnswer) => void): void {
    const { requestId: id, verb } = request
    this.#asking.set(id, { request, answer, answers: new Map(), outcome: undefined, committed: 0 })
    // Reads go round the replicas, as any balancing of load does.
    if (verb === 'get') this.#ports.send(this.#servers[this.#turn++ % this.#servers.length] as string, { type: 'read', id })
    else for (const server of this.#servers) this.#ports.send(server, { type: 'prepare', id })
  }

  receive(from: string, message: TwoPhaseMessage, now: number): void {
    const { id } = message
    const asking = this.#asking.get(id)
    if (asking === undefined) return
    if (message.type === 'shown') {
      const { record, isLocked } = message
      const isRefused = isLocked && this.#reads === 'free'
      this.#end(
        id,
        isRefused
          ? { type: 'no-effect', why: 'locked', now }
          : record
            ? { type: 'read', entry: shownOf(record), now }
            : { type: 'read', now },
      )
    } else if (message.type === 'prepared') {
      asking.answers.set(from, message)
      if (asking.answers.size === this.#servers.length) this.#decide(id, asking, now)
    } else if (message.type === 'committed') {
      asking.committed++
      if (asking.committed === this.#servers.length) this.#end(id, asking.outcome as CallAnswer)
    }
  }

  wake(): void {}

  #decide(id: string, { request, answers, ...asking }: Asking, now: number): void {
    const all = [...answers.values()]
    // All replicas are locked for us and hold the same; before that nothing may be judged.
    const decision = all.some(({ isLocked }) => isLocked)
      ? { answer: { type: 'no-effect', why: 'locked', now } as const, record: undefined }
      : decided(request, all[0]?.record, now)
    if (decision.answer.type !== 'applied') {
      for (const server of this.#servers) this.#ports.send(server, { type: 'abort', id })
      return this.#end(id, decision.answer)
    }
    this.#asking.set(id, { request, answers, ...asking, outcome: decision.answer })
    for (const server of this.#servers) this.#ports.send(server, { type: 'commit', id, record: decision.record })
  }

  #end(id: string, answer: CallAnswer): void {
    this.#asking.get(id)?.answer(answer)
    this.#asking.delete(id)
  }
}

function decided(
  { verb, value, ifVersion, requestId }: PeerRequest,
  before: Committed | undefined,
  now: number,
): { readonly answer: CallAnswer; readonly record: Committed | undefined } {
  if (before && verb === 'create') return { answer: { type: 'exists', entry: shownOf(before), now }, record: undefined }
  if (!before && (verb === 'update' || ifVersion !== undefined)) return { answer: { type: 'missing', now }, record: undefined }
  if (before && ifVersion !== undefined && ifVersion !== versionText(before))
    return { answer: { type: 'version', entry: shownOf(before), now }, record: undefined }
  if (verb === 'destroy') return { answer: { type: 'applied', now }, record: undefined }
  const record: Committed = {
    value: value as Value,
    version: (before?.version ?? 0) + 1,
    createdAt: before?.createdAt ?? now,
    writtenBy: requestId,
  }
  return { answer: { type: 'applied', entry: shownOf(record), now }, record }
}

const twoPhase = (reads: 'any' | 'free', name: string): Peer<TwoPhaseMessage> => ({
  name,
  server: (ports) => new TwoPhaseServer(ports),
  proxy: (ports, servers) => new TwoPhaseProxy(ports, servers, reads),
})

export const twoPhaseCommit = twoPhase('any', 'a model of two-phase commit')
export const twoPhaseCommitLockedReads = twoPhase('free', 'a model of two-phase commit whose reads respect locks')
