// Prints the class behind a session, for the order of imports that the first argument names.
import { createRequire } from 'node:module';
import { encode, qkv } from '../models.js';

const model = encode({ inputs: qkv() });
const require = createRequire(import.meta.url);
const importOurs = (): Promise<unknown> => import('../../../op/node/index.js');
type Ort = typeof import('onnxruntime-node');

async function load(order: string | undefined): Promise<Ort> {
  if (order === 'ours-first') await importOurs();
  const ort = order === 'commonjs' ? (require('onnxruntime-node') as Ort) : await import('onnxruntime-node');
  if (order !== 'ours-first') await importOurs();
  return ort;
}

const ort = await load(process.argv[2]);
const session = await ort.InferenceSession.create(model);
console.log((session as unknown as { handler: object }).handler.constructor.name);
