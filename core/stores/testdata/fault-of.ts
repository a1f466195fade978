/** The fault of a call that must fail with one. */
import { isKvError, type KvError } from '../../kv/errors.ts'

export async function faultOf(call: Promise<unknown>): Promise<KvError> {
  const error: unknown = await call.then(
    () => 'it was answered',
    (caught: unknown) => caught,
  )
  if (!isKvError(error)) throw new Error(`expected a KvError, got ${String(error)}`)
  return error
}
