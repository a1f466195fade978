/** The memory store passes the whole kit: with a clock that the kit moves, and with the machine's. */
import { test } from 'vitest'
import { memory } from '../stores/memory.ts'
import { testClock } from '../testing/clock.ts'
import { kvConformance } from './index.ts'

kvConformance(
  (name, run) => test(`memory with a test clock, ${name}`, run),
  () => {
    const clock = testClock()
    return { kv: memory({ clock }), clock }
  },
)

kvConformance(
  (name, run) => test(`memory with the machine's clock, ${name}`, run),
  () => memory({ limits: 'juno' }),
  { histories: 10 },
)
