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

/** A bucket that fills evenly, or a theoretical arrival time: the same. */
function gcra(charges, at, { limit, perMs }) {
  const eachMs = perMs / limit
  let arrival = -Infinity
  for (const { at: when, cost } of charges) arrival = Math.max(arrival, when) + cost * eachMs
  return Math.floor((perMs - Math.max(0, arrival - at)) / eachMs + 1e-6)
}

const both = (charges, at, policy) => Math.min(gcra(charges, at, policy), first(charges, at, policy))
const rooms = { first, aligned, sliding, gcra, both }
const slackOf = { sliding: 1 }

const sum = (charges) => charges.reduce((total, { cost }) => total + cost, 0)
/** An answer that does not say whether the request was counted. */
const isDoubtful = ({ outcome }) => outcome === 'unknown' || outcome === 'threw' || outcome === 'unseen'

/** Each time is read as early as it can be, or as late. */
const chargesOf = (requests, isEarly) =>
  requests
    .map((one) => ({ at: isEarly ? one.from - slackMs : one.to + slackMs, cost: one.cost - (one.refunded ?? 0) }))
    .sort((left, right) => left.at - right.at)

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

  const overAdmitted = of('allowed').filter((one, index, allowed) => {
    const before = chargesOf(allowed.slice(0, index), true)
    return [one.from - slackMs, one.to + slackMs].every((at) => one.cost > room(before, at, policy) + slack)
  })
  const charged = inOrder.filter((one) => one.outcome === 'allowed' || isDoubtful(one))
  const hadRoom = (one, counted) => {
    const before = chargesOf(
      counted.filter((other) => other !== one && other.from <= one.to + slackMs),
      false,
    )
    return [one.from - slackMs, one.to + slackMs].every((at) => one.cost <= room(before, at, policy) - slack)
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
