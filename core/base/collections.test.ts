import fc from 'fast-check'
import { expect, test } from 'vitest'
import { Heap } from './collections.ts'

test('a heap gives its items smallest first, whatever was pushed and popped before', () => {
  fc.assert(
    fc.property(fc.array(fc.option(fc.integer({ min: 0, max: 50 }), { nil: undefined })), (steps) => {
      const heap = new Heap<number>((a, b) => a - b)
      const twin: number[] = []
      for (const step of steps) {
        if (step === undefined) {
          twin.sort((a, b) => a - b)
          expect(heap.first).toBe(twin[0])
          expect(heap.pop()).toBe(twin.shift())
        } else {
          heap.push(step)
          twin.push(step)
        }
        expect(heap.size).toBe(twin.length)
      }
    }),
  )
})

test('an emptied heap takes items again', () => {
  const heap = new Heap<number>((a, b) => a - b)
  heap.push(1)
  heap.clear()
  expect(heap.pop()).toBeUndefined()
  heap.push(2)
  expect(heap.first).toBe(2)
})
