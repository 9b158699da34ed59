/** The zoo's character language model over Python sources: perplexity of the next character. */
import { readFileSync } from 'node:fs';
import path from 'node:path';
import { readNpz } from '../../converter/data/npz.js';
import { sliceRows, type Feeds, type Sample } from '../../converter/data/tensor.js';
import { openModelFile } from '../../converter/onnx/file.js';
import type { Session } from '../../converter/verify/runtime.js';
import { sourceOf, type Score, type Task } from './task.js';
import { zooFile } from './zoo.js';

const FITTED_ROWS = 16;
const ROWS_PER_RUN = 4;

/** `null` where the zoo is not at hand. */
export function charLmTask(): Task | null {
  const file = zooFile('trained_charlm_softmax__dyn18.onnx');
  const heldOut = zooFile('trained_charlm_softmax.heldout.npz');
  if (file === null || heldOut === null) return null;
  const { model } = openModelFile(file);
  const { input_ids: ids, labels } = readNpz(readFileSync(heldOut), heldOut) as Record<
    'input_ids' | 'labels',
    Sample
  >;
  const rows = ids.dims[0]!;
  const score = async (session: Session, from: number, to: number): Promise<Score> => {
    let nats = 0;
    const decisions: number[] = [];
    for (let row = from; row < to; row += ROWS_PER_RUN) {
      const end = Math.min(to, row + ROWS_PER_RUN);
      const logits = (await session.run({ input_ids: sliceRows(ids, row, end) }))['logits']!;
      const truth = sliceRows(labels, row, end).data as BigInt64Array;
      const classes = logits.dims[2]!;
      const data = logits.data as Float32Array;
      for (let i = 0; i < truth.length; i++) {
        const own = data.subarray(i * classes, (i + 1) * classes);
        const largest = own.reduce((max, value) => Math.max(max, value), -Infinity);
        const sum = own.reduce((total, value) => total + Math.exp(value - largest), 0);
        nats -= own[Number(truth[i])]! - largest - Math.log(sum);
        decisions.push(own.indexOf(largest));
      }
    }
    return { value: Math.exp(nats / decisions.length), decisions };
  };
  const runs = (): Feeds[] =>
    Array.from({ length: FITTED_ROWS / ROWS_PER_RUN }, (_, run) => ({
      input_ids: sliceRows(ids, run * ROWS_PER_RUN, (run + 1) * ROWS_PER_RUN),
    }));
  return {
    name: 'charLm',
    metric: 'perplexity',
    goal: 'within +3 %',
    reached: (original, calibrated) => calibrated <= original * 1.03,
    within: { amount: 0.03, relative: true },
    better: 'lower',
    model,
    folder: path.dirname(file),
    fitting: sourceOf(`${FITTED_ROWS} x ${ids.dims[1]} characters`, runs),
    scoreFitted: (session) => score(session, 0, FITTED_ROWS),
    scoreJudged: (session) => score(session, FITTED_ROWS, rows),
    fitted: `${FITTED_ROWS} x ${ids.dims[1]} characters`,
    judged: `${rows - FITTED_ROWS} x ${ids.dims[1]} other characters`,
  };
}
