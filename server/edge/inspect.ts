/**
 * Says what bytes are: frames of either protocol, or what lies on the disk of a storage server.
 * Invariant: what does not make sense is an error with a code and a hint, and never half an answer. A checksum is looked at when the key is given,
 * for it covers both, and what was not checked says so.
 */
import { invalid, KvError } from '../../core/kv/errors.ts'
import { dumpFrames, isFrame, plain, type Plain } from '../../core/wire/dump.ts'
import { WireError } from '../../core/wire/wire-bytes.ts'
import * as layout from './storage-layout.ts'

/**
 * @param key of the disk, when `bytes` are what is stored there
 * @throws KvError INVALID_ARGUMENT for bytes that are nothing of ours, DAMAGED for what was not written for this key
 */
export function inspect(bytes: Uint8Array, key?: Uint8Array): readonly Plain[] {
  if (key !== undefined) return [stored(key, bytes)]
  if (bytes.length === 0) invalid('there are no bytes', 'give them as hex, or --file, or - for stdin')
  if (isFrame(bytes)) return framesIn(bytes)
  if (layout.isMarks(bytes)) return [{ what: 'marks', isChecked: false, ...(uncheckedMarks(bytes) as object) }]
  const entry = layout.uncheckedEntry(bytes)
  if (entry !== 'damaged') return [{ what: 'entry', isChecked: false, ...(plain(entry) as object) }]
  return invalid(
    'these bytes are no frame, and nothing that a storage server stores',
    "a frame begins with 5050 (JunoDB's clients) or 4858 (our own messages); what is stored is looked at with --key and the key of the disk",
  )
}

function framesIn(bytes: Uint8Array): readonly Plain[] {
  try {
    return dumpFrames(bytes)
  } catch (cause) {
    if (!(cause instanceof WireError)) throw cause
    return invalid(cause.message, 'give whole frames; a version or kind that this release does not know needs a newer hapax')
  }
}

function stored(key: Uint8Array, value: Uint8Array): Plain {
  const parts = layout.keyParts(key)
  if (parts === undefined) return invalid('this is no key of the disk of a storage server', 'it begins with 64, 65, 67, 6d or 73')
  const shown = plain(parts) as object
  switch (parts.what) {
    case 'entry': {
      const entry = layout.decodeEntry(key, value)
      if (entry === 'damaged') throw damaged()
      return { ...shown, isChecked: true, ...(plain(entry) as object) }
    }
    case 'store':
    case 'shard': {
      const marks = layout.decodeMarks<object>(key, value)
      if (marks === undefined) throw damaged()
      return { ...shown, isChecked: true, marks: marks as Plain }
    }
    case 'generation':
      if (value.length !== 4) invalid('a generation has four bytes')
      return { ...shown, generation: Buffer.from(value).readUInt32BE(0) }
    case 'due':
      if (value.length > 0) invalid('behind a due key stands nothing')
      return shown as Plain
  }
}

function uncheckedMarks(bytes: Uint8Array): Plain {
  try {
    return { marks: JSON.parse(Buffer.from(bytes.subarray(0, -4)).toString('utf8')) as Plain }
  } catch {
    return invalid('these bytes begin as the marks of a storage server do, and are none', 'they may be cut short')
  }
}

const damaged = (): KvError =>
  new KvError('DAMAGED', {
    message: 'this was not written for this key, or was changed since: the checksum of both does not fit',
    hint: 'look whether key and value belong together; without --key it is shown unchecked',
  })
