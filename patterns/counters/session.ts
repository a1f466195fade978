/**
 * Numbers the requests of a process, so that a record forgets each soon after its answer.
 * Invariant: a number is done with only when its call has ended, and no number is given twice.
 * Why the oldest call decides: a record learns with one number what it may forget, whatever else is under way.
 */
import { newId } from '../../core/kv/id.ts'
import type { RequestSession, SessionRequest } from './types.ts'

/**
 * Makes a session: one for a process, or for each kind of work if some calls go on for long.
 * @example const hits = await session.run((requestId) => retrying(() => counter.add('home', 1, { requestId })))
 */
export function requestSession(): RequestSession {
  const session = newId()
  /** Rising, so that the first is the lowest that is not done. */
  const underWay = new Set<number>()
  let sequence = 0
  return {
    async run<T>(call: (requestId: SessionRequest) => Promise<T>): Promise<T> {
      const own = ++sequence
      underWay.add(own)
      try {
        return await call({
          session,
          sequence: own,
          /** Of the moment at which it is sent, so that the oldest call always has room. */
          get done() {
            const [oldest = own + 1] = underWay
            return oldest
          },
        })
      } finally {
        underWay.delete(own)
      }
    },
  }
}
