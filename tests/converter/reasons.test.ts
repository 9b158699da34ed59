/** The refusal codes and their page say the same. */
import assert from 'node:assert/strict';
import { readFileSync } from 'node:fs';
import { REASONS } from '../../converter/index.js';

describe('docs/reasons.md', () => {
  it('explains every code and no other', () => {
    const page = readFileSync(new URL('../../docs/reasons.md', import.meta.url), 'utf8');
    const explained = [...page.matchAll(/^\| `([a-z-]+)`\s*\|/gm)].map(([, code]) => code!);
    assert.deepEqual(explained.sort(), Object.keys(REASONS).sort());
  });
});
