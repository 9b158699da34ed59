/** The fenced code blocks of the project's documents. */
import { readdirSync, readFileSync } from 'node:fs';
import { join } from 'node:path';

export interface Snippet {
  /** Path of the document from the root. */
  readonly file: string;
  /** Line of the opening fence, from 1. */
  readonly line: number;
  readonly language: string;
  readonly code: string;
  /** The text since the heading above. */
  readonly before: string;
}

/** README, CONTRIBUTING and everything below docs/, in reading order of each document. */
export function documents(root: string): string[] {
  const docs = readdirSync(join(root, 'docs'), { recursive: true, encoding: 'utf8' })
    .filter((path) => path.endsWith('.md'))
    .map((path) => `docs/${path.replaceAll('\\', '/')}`);
  return ['README.md', 'CONTRIBUTING.md', ...docs.sort()];
}

export function snippets(root: string, file: string): Snippet[] {
  const lines = readFileSync(join(root, file), 'utf8').split('\n');
  const found: Snippet[] = [];
  let before: string[] = [];
  for (let at = 0; at < lines.length; at++) {
    const line = lines[at]!;
    const fence = /^(\s*)(`{3,})(\S*)/.exec(line);
    if (fence === null) {
      if (/^#+ /.test(line)) before = [];
      before.push(line);
      continue;
    }
    const [, indent, ticks, language] = fence;
    const begin = at;
    while (++at < lines.length && lines[at]!.trim() !== ticks) continue;
    const code = lines.slice(begin + 1, at).map((text) => text.slice(indent!.length));
    found.push({
      file,
      line: begin + 1,
      language: language!,
      code: code.join('\n'),
      before: before.join('\n'),
    });
  }
  return found;
}
