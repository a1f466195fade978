/** What the oracles remember: what is looked for in a short while only, so the oldest goes when there is too much. */
export function remember<K, T>(map: Map<K, T>, name: K, value: T, most: number): void {
  map.delete(name)
  map.set(name, value)
  if (map.size > most) map.delete(map.keys().next().value as K)
}
