/** 'hapax/counters': exact, windowed and sharded counts, and gauges whose slots come back. Plain functions over any store. */
export { counter } from './counter.ts'
export { Counted, type Countable, type CountedOptions, CountRefusedError } from './decorator.ts'
export type { CountersEvent, CountersEventType } from './events.ts'
export { gauge } from './gauge.ts'
export { requestSession } from './session.ts'
export { sharded } from './sharded.ts'
export type * from './types.ts'
export { windowed } from './windowed.ts'
