/** 'hapax/idempotency': do it once, over any store, for functions and queues. Express and Koa have doors of their own. */
export { currentOnce, IdempotencyRefusedError, Idempotent, type IdempotentOptions } from './decorator.ts'
export type { IdempotencyEvent } from './events.ts'
export { fingerprintOf, type FingerprintParts } from './fingerprint.ts'
export { idempotency } from './idempotency.ts'
export { parseKey, type ParsedKey } from './key.ts'
export type * from './types.ts'
