/** How another process reaches the store that a test serves over HTTP: what `processes.module` of the conformance kit wants. */
export function openKv(port) {
  const call = async (verb, ...args) => {
    const response = await fetch(`http://127.0.0.1:${port}/`, { method: 'POST', body: JSON.stringify({ verb, args }, bytesOut) })
    if (!response.ok) throw new Error(`${verb} answered ${response.status}`)
    return JSON.parse(await response.text(), bytesIn)
  }
  return {
    get: (key) => call('get', key),
    update: (key, value, options) => call('update', key, value, options),
    close: async () => {},
  }
}

/** JSON with byte values, both ways. */
export const bytesOut = (_name, value) => (value instanceof Uint8Array ? { base64: Buffer.from(value).toString('base64') } : value)
export const bytesIn = (_name, value) => (typeof value?.base64 === 'string' ? Uint8Array.from(Buffer.from(value.base64, 'base64')) : value)
