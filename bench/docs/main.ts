/** `npm run docs:benchmarks`: writes docs/benchmarks/NAME.md and NAME.svg from each docs/data/NAME.json, and their index. */
import { existsSync, mkdirSync, readdirSync, readFileSync, writeFileSync } from 'node:fs';
import { join } from 'node:path';
import { format, resolveConfig } from 'prettier';
import { page, readData } from './page.js';
import { viewOf } from './views.js';

const docs = join(import.meta.dirname, '../../docs');
const data = join(docs, 'data');
const pages = join(docs, 'benchmarks');

async function writeMarkdown(file: string, text: string): Promise<void> {
  const options = await resolveConfig(file);
  writeFileSync(file, await format(text, { ...options, parser: 'markdown' }));
}

const files = existsSync(data) ? readdirSync(data).filter((file) => file.endsWith('.json')) : [];
mkdirSync(pages, { recursive: true });
const index: string[] = [];
for (const file of files.sort()) {
  const name = file.slice(0, -'.json'.length);
  const view = viewOf(name);
  const { markdown, plot } = page(name, readData(readFileSync(join(data, file), 'utf8'), file), view);
  await writeMarkdown(join(pages, `${name}.md`), markdown);
  if (plot !== null) writeFileSync(join(pages, `${name}.svg`), plot);
  index.push(`- [${view.title}](${name}.md)`);
  console.log(`docs/benchmarks/${name}.md`);
}
const introduction =
  'Each page is generated from the data of one run (`npm run docs:benchmarks`), names the machine it ran on, and says so where rows come from another run.';
await writeMarkdown(join(pages, 'README.md'), ['# Benchmarks', introduction, index.join('\n')].join('\n\n'));
