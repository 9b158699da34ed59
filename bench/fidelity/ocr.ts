/** Reading rendered lines with PP-OCRv4: character error rate. */
import path from 'node:path';
import { openModelFile } from '../../converter/onnx/file.js';
import type { Feeds } from '../../converter/data/tensor.js';
import type { Session } from '../../converter/verify/runtime.js';
import { characterErrorRate } from '../../examples/ocr/error-rate.js';
import { readScores, RECOGNISER_FILE } from '../../examples/ocr/recognise.js';
import { recogniserInput, renderLine, type TextLine } from '../../examples/ocr/render.js';
import { FITTED_FONTS, fittedLines, JUDGED_FONTS, judgedLines } from './lines.js';
import { sourceOf, type Score, type Task } from './task.js';

const FITTED = 64;
const JUDGED = 400;

export function ocrTask(): Task {
  const { model } = openModelFile(RECOGNISER_FILE);
  const input = model.graph.inputs[0]!.name;
  const feedsOf = (line: TextLine): Feeds => {
    const { data, dims } = recogniserInput(renderLine(line));
    return { [input]: { type: 'float32', dims, data } };
  };
  const fitted = fittedLines(FITTED);
  const judged = judgedLines(JUDGED);
  const rendered = new Map<TextLine, Feeds>();
  const drawn = (line: TextLine): Feeds => {
    let feeds = rendered.get(line);
    if (!feeds) rendered.set(line, (feeds = feedsOf(line)));
    return feeds;
  };
  const score = async (session: Session, lines: readonly TextLine[]): Promise<Score> => {
    const readings: string[] = [];
    for (const line of lines) {
      const scores = (await session.run(drawn(line)))[session.outputs[0]!]!;
      readings.push(readScores(scores.data as Float32Array, scores.dims));
    }
    const value = characterErrorRate(lines.map(({ text }, i) => ({ truth: text, reading: readings[i]! })));
    return { value, decisions: readings };
  };
  return {
    name: 'ocr',
    metric: 'character error rate',
    goal: 'within +0.002',
    reached: (original, calibrated) => calibrated <= original + 0.002,
    within: { amount: 0.002, relative: false },
    better: 'lower',
    model,
    folder: path.dirname(RECOGNISER_FILE),
    fitting: sourceOf(`${FITTED} rendered lines`, () => fitted.map(drawn)),
    scoreFitted: (session) => score(session, fitted),
    scoreJudged: (session) => score(session, judged),
    fitted: `${FITTED} lines in ${FITTED_FONTS.join(', ')}`,
    judged: `${JUDGED} lines in ${JUDGED_FONTS.join(', ')}`,
  };
}
