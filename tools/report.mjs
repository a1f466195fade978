/**
 * Counts what a group of tests did, from its JSON report and from how its process ended.
 * Invariant: a group that crashed, hung, left no report or ran nothing never counts as passed.
 * Why not the exit code alone: it has no numbers; why not the report alone: a process may die after it was written.
 */

/** @typedef {{ passed: number, failed: number, skipped: number, notes: string[] }} Count */

const none = { passed: 0, failed: 0, skipped: 0 }

/** @returns {Count} a failure that stands for a whole group */
export const failedGroup = (why) => ({ ...none, failed: 1, notes: [why] })

/** @returns {Count} a group whose program is not to be had: left out on a desk, a failure where everything has to run */
export const missingGroup = (why, ci) =>
  ci ? failedGroup(`cannot be left out with CI=true: ${why}`) : { ...none, skipped: 1, notes: [`skipped: ${why}`] }

/**
 * @param {object | undefined} report vitest's JSON report, or `{ passed, failed }` of a plain command; undefined when there is none
 * @param {{ code: number | null, timedOut: boolean }} end how the process ended
 * @returns {Count}
 */
export function countGroup(report, end) {
  const count = report === undefined ? { ...none, notes: [] } : countReport(report)
  const fail = (why) => {
    count.failed += 1
    count.notes.push(why)
  }
  if (end.timedOut) fail('killed: it took longer than its time box')
  else if (report === undefined) fail(`ended with ${end.code ?? 'a signal'} and left no report`)
  else if (end.code !== 0 && count.failed === 0) fail(`ended with ${end.code ?? 'a signal'} although no test failed`)
  else if (count.passed + count.failed + count.skipped === 0) fail('ran no test')
  return count
}

function countReport(report) {
  if (report.testResults === undefined) return { passed: report.passed, failed: report.failed, skipped: 0, notes: [] }
  const count = { ...none, notes: [] }
  for (const file of report.testResults) {
    let failedHere = 0
    for (const test of file.assertionResults) {
      if (test.status === 'passed') count.passed += 1
      else if (test.status === 'failed') {
        failedHere += 1
        count.notes.push(`failed: ${file.name}: ${test.fullName}`)
      } else {
        count.skipped += 1
        count.notes.push(`skipped: ${test.fullName}`)
      }
    }
    // A file that does not load, or whose hooks fail, has no failed test: it counts as one.
    if (file.status === 'failed' && failedHere === 0) {
      failedHere = 1
      count.notes.push(`failed: ${file.name}: ${file.message || 'the file could not be run'}`)
    }
    count.failed += failedHere
  }
  return count
}

/** The last line of a run. */
export function lastLine(counts) {
  const sum = (of) => counts.reduce((total, count) => total + count[of], 0)
  const skipped = sum('skipped')
  return `${sum('passed')} passed, ${sum('failed')} failed${skipped > 0 ? `, ${skipped} skipped` : ''}`
}
