/**
 * One frame of JunoDB as the Go encoder would have sent it: fields in its order, the meta first, nothing that it does not know, zeros where zeros belong.
 * It knows nothing of the codec that is tried by it: bytes are cut, sorted and joined.
 */

/** Descriptors in the order of the Go encoder; the last is the field of our own. */
const order = [0x2a, 0x65, 0x68, 0x47, 0x21, 0x22, 0x23, 0x24, 0x09, 0x06, 0x0b, 0x1e]
const numbers = [0x2a, 0x47, 0x21, 0x22, 0x23, 0x24]
const texts = [0x09, 0x0b]
const padded = (bytes: Buffer): Buffer => Buffer.concat([bytes, Buffer.alloc((8 - (bytes.length % 8)) % 8)])
const sized = (content: Buffer): Buffer => {
  const bytes = padded(Buffer.concat([Buffer.alloc(4), content]))
  bytes.writeUInt32BE(bytes.length, 0)
  return bytes
}

export function canonical(frame: Buffer): Buffer {
  const isAnswer = frame.readUInt8(3) === 0
  let fields = new Map<number, Buffer>()
  let payload: Buffer | undefined
  for (let at = 16; at < frame.length; at += frame.readUInt32BE(at)) {
    const component = frame.subarray(at, at + frame.readUInt32BE(at))
    if (component[4] === 2) fields = fieldsOf(component)
    if (component[4] === 1) payload = payloadOf(component)
  }
  const known = order.flatMap((descriptor) => {
    const field = fields.get(descriptor)
    if (field === undefined) return []
    // A text has its length behind its size. An id of zeros is one.
    const isEmpty = texts.includes(descriptor) ? field[1] === 0 : numbers.includes(descriptor) && field.every((byte) => byte === 0)
    return isEmpty ? [] : [{ descriptor, field }]
  })
  const descriptors = [2, known.length, ...known.map(({ descriptor }) => descriptor)]
  while ((4 + descriptors.length) % 4 !== 0) descriptors.push(0)
  const meta = sized(Buffer.concat([Buffer.from(descriptors), ...known.map(({ field }) => field)]))
  const head = Buffer.from(frame.subarray(0, 16))
  head[2] = 1
  head[3] = isAnswer ? 0 : 0x40
  head[14] = 0
  if (!isAnswer) head[15] = 0
  const whole = Buffer.concat([head, meta, payload ?? Buffer.alloc(0)])
  whole.writeUInt32BE(whole.length, 4)
  return whole
}

function fieldsOf(component: Buffer): Map<number, Buffer> {
  const fields = new Map<number, Buffer>()
  const descriptors = component.subarray(6, 6 + component.readUInt8(5))
  let at = Math.ceil((6 + descriptors.length) / 4) * 4
  for (const descriptor of descriptors) {
    const size = descriptor < 0x20 ? component.readUInt8(at) : 2 ** ((descriptor >> 5) + 1)
    fields.set(descriptor, component.subarray(at, at + size))
    at += size
  }
  return fields
}

function payloadOf(component: Buffer): Buffer {
  const length = component.readUInt32BE(8)
  const end = 12 + component.readUInt8(5) + component.readUInt16BE(6) + length
  // A type without a value is no value.
  const content = Buffer.from(component.subarray(4, length === 1 ? end - 1 : end))
  if (length === 1) content.writeUInt32BE(0, 4)
  return sized(content)
}
