/** The lines of text that the demo draws and reads. */
import type { TextLine } from './render.js';

export const DEMO_LINES: readonly TextLine[] = [
  { text: 'Attention without softmax: sigmoid(QK+b)V', font: 'Open Sans', sizePx: 32 },
  { text: 'The quick brown fox jumps over 13 lazy dogs.', font: 'Lora', sizePx: 30 },
  { text: 'Invoice No. 2409-04431, total 1,284.50 EUR', font: 'DejaVu Mono', sizePx: 26 },
  { text: 'Sphinx of black quartz, judge my vow!', font: 'DejaVu Serif', sizePx: 34 },
  { text: 'Gate B17 closes at 06:45, boarding group 3', font: 'Lora Italic', sizePx: 28 },
  { text: 'One row of weights need not sum to one.', font: 'Open Sans Bold', sizePx: 36 },
];
