/** A digits classifier trained with softmax attention: share of held-back digits that it names right. */
import { fileURLToPath } from 'node:url';
import path from 'node:path';
import { openModelFile } from '../../converter/onnx/file.js';
import type { Feeds } from '../../converter/data/tensor.js';
import type { Session } from '../../converter/verify/runtime.js';
import { loadDigits, PIXELS, SIDE, type Digits } from './digits-data.js';
import { sourceOf, type Score, type Task } from './task.js';

const FITTED = 256;
const BATCH = 32;

export function digitsTask(): Task {
  const file = fileURLToPath(new URL('digits.onnx', import.meta.url));
  const { model } = openModelFile(file);
  const { training, heldBack } = loadDigits();
  const batch = ({ images }: Digits, from: number, to: number): Feeds => ({
    image: {
      type: 'float32',
      dims: [to - from, 1, SIDE, SIDE],
      data: images.slice(from * PIXELS, to * PIXELS),
    },
  });
  const score = async (session: Session, digits: Digits, count: number): Promise<Score> => {
    const decisions: number[] = [];
    let right = 0;
    for (let from = 0; from < count; from += BATCH) {
      const to = Math.min(count, from + BATCH);
      const scores = (await session.run(batch(digits, from, to)))['scores']!.data as Float32Array;
      for (let row = 0; row < to - from; row++) {
        const own = scores.subarray(row * 10, row * 10 + 10);
        const decision = own.indexOf(own.reduce((max, value) => Math.max(max, value), -Infinity));
        decisions.push(decision);
        if (decision === digits.labels[from + row]) right++;
      }
    }
    return { value: right / count, decisions };
  };
  const runs = (): Feeds[] =>
    Array.from({ length: FITTED / BATCH }, (_, run) => batch(training, run * BATCH, (run + 1) * BATCH));
  return {
    name: 'digits',
    metric: 'accuracy',
    goal: 'within 0.3 points',
    reached: (original, calibrated) => calibrated >= original - 0.003,
    within: { amount: 0.003, relative: false },
    better: 'higher',
    model,
    folder: path.dirname(file),
    fitting: sourceOf(`${FITTED} digits`, runs),
    scoreFitted: (session) => score(session, training, FITTED),
    scoreJudged: (session) => score(session, heldBack, heldBack.count),
    fitted: `${FITTED} training digits`,
    judged: `${heldBack.count} held-back digits`,
  };
}
