/** Writes the HTML report; it appears complete or not at all. */
import { writePieces } from '../onnx/file.js';
import { reportPage } from '../report/page.js';
import type { ReportInput } from '../report/report-input.js';
import { EXIT, Failure, fileErrorText } from './failure.js';

export function writeReport(path: string, input: ReportInput): void {
  try {
    writePieces(path, [new TextEncoder().encode(reportPage(input))]);
  } catch (error) {
    throw new Failure(`report ${path}: cannot be written, ${fileErrorText(error)}`, EXIT.usage, {
      cause: error,
    });
  }
}
