/**
 * Copies of callers' values, for a caller may use its buffer again while its write waits.
 * Invariant: a copy is never written to again; the room that a slab has left goes to later copies alone.
 * Why slabs: an ArrayBuffer for each small value would cost more than all else that a write does in this process.
 */
import type { KvOperation } from '../record/operation.ts'

/** A copy pins its slab, so a slab is small, and what is not small against it has a buffer of its own. */
const slabBytes = 8_192
const slabValueMax = 1_024
let slab = new ArrayBuffer(slabBytes)
let slabUsed = 0

/** The operation with a copy of the caller's value, for the caller may reuse its buffer. The copy lives as long as the answer. */
export function withOwnValue(operation: KvOperation): KvOperation {
  if (operation.verb === 'destroy') return operation
  const { value } = operation
  if (value.length > slabValueMax) return { ...operation, value: new Uint8Array(value) }
  if (slabUsed + value.length > slabBytes) {
    slab = new ArrayBuffer(slabBytes)
    slabUsed = 0
  }
  const own = new Uint8Array(slab, slabUsed, value.length)
  own.set(value)
  slabUsed += value.length
  return { ...operation, value: own }
}
