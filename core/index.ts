/** 'hapax': the contract, the memory store and what works on any store. No socket, no disk, no framework. */
export type { Clock, Duration, EpochMs } from './base/types.ts'
export { isKvError, KvError, type KvErrorCode, type Retry } from './kv/errors.ts'
export type * from './kv/kv.ts'
export { limitPresets, need, type Capabilities, type Limits, type LimitsOption, type Needs } from './kv/limits.ts'
export { memory, type MemoryOptions } from './stores/memory.ts'
