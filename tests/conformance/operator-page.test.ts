/** docs/operator.md carries the tables that op/schema.ts gives. */

import assert from 'node:assert/strict';
import { readFile } from 'node:fs/promises';

import { operatorPage } from '../../docs/generate-operator.js';
import { ATTRIBUTES, INPUTS } from '../../op/schema.js';

describe('docs/operator.md', () => {
  const page = (): Promise<string> => readFile(new URL('../../docs/operator.md', import.meta.url), 'utf8');

  it('is what npm run docs:operator writes', async () => {
    const current = await page();
    assert.equal(current, await operatorPage(current));
  });

  it('names every input and attribute', async () => {
    const text = await page();
    for (const { name } of [...INPUTS, ...ATTRIBUTES]) assert.ok(text.includes(`| \`${name}\``), name);
  });
});
