/**
 * The store's keys of a cache: entries, tags, and the one record of its generations.
 * Invariant: no two different parts give the same bytes to hash: each is a JSON string in a JSON list; every key has one length (K12).
 * Why hashed: a store of 128 bytes a key (JunoDB) takes any key, and nobody reads from the store who was looked up.
 */
import { hash } from 'node:crypto'
import { identityOf, type Slot } from './key.ts'

const keyPrefix = 'cache:'

/** The prefix and 43 characters of base64url. */
export const storeKeyBytes = keyPrefix.length + 43

export const entryKeyOf = (name: string, slot: Slot): string => hashed(['entry', name, ...identityOf(slot)])
export const tagKeyOf = (name: string, tag: string): string => hashed(['tag', name, tag])
export const generationsKeyOf = (name: string): string => hashed(['generations', name])

/** In one call: a Hash object costs more than hashing so few bytes. */
const hashed = (parts: readonly string[]): string => keyPrefix + hash('sha256', JSON.stringify(parts), 'base64url')
