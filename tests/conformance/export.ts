/** Command: npm run conformance:export -- DIR */

import { CASES } from './cases.js';
import { exportCases } from './export-cases.js';

const [directory, ...rest] = process.argv.slice(2);
if (directory === undefined || rest.length > 0) {
  console.error('usage: npm run conformance:export -- DIR');
  process.exit(1);
}
try {
  const { cases } = await exportCases(directory, CASES);
  console.log(`${cases.length} cases written to ${directory}`);
} catch (error) {
  console.error(`conformance:export: ${(error as Error).message}`);
  process.exit(1);
}
