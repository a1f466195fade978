/**
 * What was said about one key in one history, as lines that a person reads beside the operations.
 * Invariant: the history is the one that the seed gives without an onlooker.
 */
import type { Ballot, ReplicaEntry } from '../../core/wire/replica-message.ts'
import { play, type ScenarioOptions } from './scenario.ts'
import type { Carried } from './site.ts'

/** The latest lines that are kept. */
const linesMax = 400

/** Each message about the key as it left, whether or not it arrived. */
export function transcriptOf(seed: number, options: ScenarioOptions, key: string): string[] {
  const lines: string[] = []
  play(seed, options, (now, from, to, message) => {
    if (!('key' in message) || message.key !== key) return
    lines.push(`${now.toFixed(3).padStart(10)}  ${`${from} -> ${to}`.padEnd(14)} ${told(message)}`)
    if (lines.length > linesMax) lines.shift()
  })
  return lines
}

function told(message: Carried & { readonly key: string }): string {
  switch (message.type) {
    case 'prepare':
      return `prepare ${ballotText(message.ballot)} epoch ${message.epoch}${message.isRaised ? ' raised' : ''} ${message.wants}`
    case 'accept':
      return `accept ${entryText(message)} epoch ${message.epoch}`
    case 'read':
      return `read epoch ${message.epoch} ${message.wants}`
    case 'promised':
    case 'shown':
      return `${message.type} ${message.entry === undefined ? 'nothing' : entryText(message.entry)}${message.isWhole ? '' : ' bare'} epoch ${message.epoch}`
    case 'accepted':
      return `accepted epoch ${message.epoch}`
    case 'rejected':
      return `rejected ${message.reason}${'bound' in message ? ` ${ballotText(message.bound)}` : ''}${'row' in message ? ` ${message.row.servers.join(' ')}` : ''} epoch ${message.epoch}`
    case 'repair':
      return 'repair'
    default:
      return message.type
  }
}

const ballotText = ({ ms, counter, proposer }: Ballot): string => `(${ms} ${counter} ${proposer.toString(36)})`

function entryText({ ballot, record, stub }: ReplicaEntry): string {
  const { value, version, lastRequest, expiresAt } = record
  const what = stub !== undefined ? 'stub' : value === undefined ? 'tombstone' : `${value.length} bytes`
  const until = expiresAt === 0 ? '' : ` until ${expiresAt}`
  return `${ballotText(ballot)} v${version} by ${lastRequest.replaceAll('\n', '/')} ${what}${until}`
}
