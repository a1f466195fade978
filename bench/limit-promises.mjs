/**
 * What an algorithm promises, as the dumbest model of it, and a judge that holds a history of requests against it.
 * Invariant: a time is an interval (from asked to answered, and `slackMs` around it), and each doubt is decided for the library:
 * it over-admits only if it had no room however the interval is read, and refuses wrongly only if it had room in every reading.
 * Why models and not expected counts: a stall of the machine moves the requests, and the model moves with them.
 *
 * A request: { from, to, cost, outcome, refundedAt? }. Its room: the cost that may still be taken.
 */

/** Timers and clocks of two processes are this close. */
const slackMs = 25

/** Windows that begin with a request: the first one, and then the first after each end. */
function first(charges, at, { limit, perMs }) {
  let [start, used] = [-Infinity, 0]
  for (const { at: when, cost } of charges) {
    if (when >= start + perMs) [start, used] = [when, 0]
    used += cost
  }
  return at >= start + perMs ? limit : limit - used
}

/** Windows of the calendar. */
function aligned(charges, at, { limit, perMs }) {
  const windowOf = (when) => Math.floor(when / perMs)
  return limit - sum(charges.filter((charge) => windowOf(charge.at) === windowOf(at)))
}

/** Two windows of the calendar, the one before by its share. It is an estimate by its own account: one unit either way. */
function sliding(charges, at, { limit, perMs }) {
  const window = Math.floor(at / perMs)
  const of = (number) => sum(charges.filter((charge) => Math.floor(charge.at / perMs) === number))
  return limit - of(window) - of(window - 1) * (1 - (at % perMs) / perMs)
}

/** The same with windows that begin with a charge, and anew after a window without one. */
function slidingFirst(charges, at, { limit, perMs }) {
  const rolled = ({ start, older, newer }, when) => {
    const windows = Math.floor((when - start) / perMs)
    if (windows < 1) return { start, older, newer }
    return windows === 1 && newer > 0 ? { start: start + perMs, older: newer, newer: 0 } : { start: when, older: 0, newer: 0 }
  }
  let state = { start: -Infinity, older: 0, newer: 0 }
  for (const { at: when, cost } of charges) {
    state = rolled(state, when)
    state.newer += cost
  }
  const { start, older, newer } = rolled(state, at)
  return limit - newer - older * (1 - Math.max(0, at - start) / perMs)
}

/** A bucket that fills evenly, or a theoretical arrival time: the same. */
function gcra(charges, at, { limit, perMs }) {
  const eachMs = perMs / limit
  let arrival = -Infinity
  for (const { at: when, cost } of charges) arrival = Math.max(arrival, when) + cost * eachMs
  return Math.floor((perMs - Math.max(0, arrival - at)) / eachMs + 1e-6)
}

const both = (charges, at, policy) => Math.min(gcra(charges, at, policy), first(charges, at, policy))
const rooms = { first, aligned, sliding, slidingFirst, gcra, both }
const slackOf = { sliding: 1, slidingFirst: 1 }

const sum = (charges) => charges.reduce((total, { cost }) => total + cost, 0)
/** An answer that does not say whether the request was counted. */
const isDoubtful = ({ outcome }) => outcome === 'unknown' || outcome === 'threw' || outcome === 'unseen'

/** When a request was charged, as it may be read: as early as it can be, as late, or between. */
const readings = [({ from }) => from - slackMs, ({ to }) => to + slackMs, ({ from, to }) => (from + to) / 2]

/** Whether `holds(charges, at)` in every reading of the requests before, and of `one` itself. */
const always = (requests, one, holds) =>
  readings.every((read) => {
    const charges = requests
      .map((each) => ({ at: read(each), cost: each.cost - (each.refunded ?? 0) }))
      .sort((left, right) => left.at - right.at)
    return readings.every((when) => holds(charges, when(one)))
  })

/**
 * Judges one key's history.
 * @returns overAdmitted: requests allowed though the promise had no room; wrongRefusals: refused though it had;
 * refusedWithRoom: the same, measured by what was served (for libraries whose documents say that refused requests count as well).
 */
export function judged(requests, promise, policy) {
  const room = rooms[promise.kind]
  const slack = promise.slack ?? slackOf[promise.kind] ?? 0
  const inOrder = [...requests].sort((left, right) => left.to - right.to)
  const of = (outcome) => inOrder.filter((one) => one.outcome === outcome)

  const overAdmitted = of('allowed').filter((one, index, allowed) =>
    always(allowed.slice(0, index), one, (charges, at) => one.cost > room(charges, at, policy) + slack),
  )
  const charged = inOrder.filter((one) => one.outcome === 'allowed' || isDoubtful(one))
  const hadRoom = (one, counted) => {
    const before = counted.filter((other) => other !== one && other.from <= one.to + slackMs)
    return always(before, one, (charges, at) => one.cost <= room(charges, at, policy) - slack)
  }
  const refusedWithRoom = of('denied').filter((one) => hadRoom(one, charged))
  /** A refused request that counts may be the reason for another one, but it needs a reason itself. */
  let wrong = refusedWithRoom
  if (promise.refusedCount) {
    for (let last; last !== wrong.length;) {
      last = wrong.length
      const counted = [...charged, ...of('denied').filter((one) => !wrong.includes(one))]
      wrong = wrong.filter((one) => hadRoom(one, counted))
    }
  }
  return { overAdmitted: overAdmitted.length, wrongRefusals: wrong.length, refusedWithRoom: refusedWithRoom.length }
}

/** The most that was allowed in any span so long, by the limit: what the protected service feels. */
export function most(requests, spanMs, limit) {
  const allowed = requests.filter(({ outcome }) => outcome === 'allowed' || outcome === 'unseen')
  return Math.max(0, ...allowed.map(({ to }) => sum(allowed.filter((other) => other.to >= to && other.to < to + spanMs)))) / limit
}
