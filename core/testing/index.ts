/** 'hapax/testing': a clock that obeys, a store that fails on demand, orders of calls that can be repeated. For tests, never for production. */
export { testClock, type TestClock, type TestTimer } from './clock.ts'
export { faulty, type FaultCounts, type FaultyKV, type FaultyOptions, type Verdict } from './faulty.ts'
export { counting, intercept, type CallCounts, type CountingKV, type Interceptor, type StoreCall, type StoreVerb } from './intercept.ts'
export { race, races, type Actor, type Made, type Race, type RaceOptions, type Races, type RacesOptions } from './race.ts'
