/**
 * What a model of another protocol has to be, so that the same clients, network and checker can judge it. One key.
 * Pure. Invariant: a model gets its time, its messages and its timers from outside.
 */
import type { CallAnswer, HistoryVerb, Value } from '../history.ts'

/** What a client asks. A request is never sent again. */
export interface PeerRequest {
  readonly verb: HistoryVerb
  readonly value: Value | undefined
  readonly ifVersion: string | undefined
  /** Unique. */
  readonly requestId: string
}

export interface PeerPorts<M> {
  send(to: string, message: M): void
  /** `wake` is called with the token after this many milliseconds. */
  after(ms: number, token: number): void
}

export interface PeerServer<M> {
  receive(from: string, message: M, now: number): void
  wake(token: number, now: number): void
}

export interface PeerProxy<M> extends PeerServer<M> {
  request(request: PeerRequest, now: number, answer: (answer: CallAnswer) => void): void
}

export interface Peer<M> {
  readonly name: string
  server(ports: PeerPorts<M>): PeerServer<M>
  /** @param servers the storage server of each zone */
  proxy(ports: PeerPorts<M>, servers: readonly string[]): PeerProxy<M>
}
