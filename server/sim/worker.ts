/** A worker of `npm run sim`: plays the seeds that it is handed, one after the other, and posts what came of each. */
import { parentPort } from 'node:worker_threads'
import { tryHistory } from './trial.ts'
import type { ScenarioOptions } from './scenario.ts'

export interface Assignment {
  readonly seeds: readonly number[]
  readonly options: ScenarioOptions
}

parentPort?.on('message', ({ seeds, options }: Assignment) => {
  parentPort?.postMessage(
    seeds.map((seed) => {
      try {
        return tryHistory(seed, options)
      } catch (error) {
        // A broken law of our own (an assertion) is a finding like any other.
        const text = error instanceof Error ? (error.stack ?? error.message) : String(error)
        return { seed, zones: 0, operations: 0, faults: {}, undecided: 0, violations: [text], badKeys: [], sometimes: {}, logHash: '' }
      }
    }),
  )
})
