/**
 * Draws lines of text and turns them into the recogniser's input.
 *
 * The recogniser (PP-OCRv4) wants `[1, 3, 48, W]` float32 in channel order B, G, R, scaled to [-1, 1].
 */
import { createRequire } from 'node:module';
import { Canvas, createCanvas, GlobalFonts } from '@napi-rs/canvas';

const require = createRequire(import.meta.url);

export const LINE_HEIGHT_PX = 48;
const MARGIN_PX = 6;

/** Fonts from npm packages: family name -> file inside a package. */
const FONT_FILES = {
  'Open Sans': '@fontsource/open-sans/files/open-sans-latin-400-normal.woff2',
  'Open Sans Bold': '@fontsource/open-sans/files/open-sans-latin-700-normal.woff2',
  Lora: '@fontsource/lora/files/lora-latin-400-normal.woff2',
  'Lora Italic': '@fontsource/lora/files/lora-latin-400-italic.woff2',
  'DejaVu Sans': 'dejavu-fonts-ttf/ttf/DejaVuSans.ttf',
  'DejaVu Serif': 'dejavu-fonts-ttf/ttf/DejaVuSerif.ttf',
  'DejaVu Mono': 'dejavu-fonts-ttf/ttf/DejaVuSansMono.ttf',
} as const;

export type Font = keyof typeof FONT_FILES;
export const FONTS = Object.keys(FONT_FILES) as Font[];

const registered = new Set<Font>();

function register(font: Font): void {
  if (registered.has(font)) return;
  if (GlobalFonts.registerFromPath(require.resolve(FONT_FILES[font]), font) === null) {
    throw new Error(`font "${font}": ${FONT_FILES[font]} could not be loaded`);
  }
  registered.add(font);
}

export interface TextLine {
  text: string;
  font: Font;
  /** Size in px at which the line is drawn before it is scaled to {@link LINE_HEIGHT_PX}. */
  sizePx: number;
}

/** Draws one line in black on white, cropped to its text with a margin and scaled to the recogniser's height. */
export function renderLine({ text, font, sizePx }: TextLine): Canvas {
  register(font);
  const css = `${sizePx}px "${font}"`;
  const probe = createCanvas(1, 1).getContext('2d');
  probe.font = css;
  const extent = probe.measureText(text);
  const drawnHeight = Math.ceil(sizePx * 1.4);
  const drawn = createCanvas(Math.ceil(extent.width) + 2 * MARGIN_PX, drawnHeight);
  const pen = drawn.getContext('2d');
  pen.fillStyle = '#fff';
  pen.fillRect(0, 0, drawn.width, drawn.height);
  pen.fillStyle = '#000';
  pen.font = css;
  pen.fillText(text, MARGIN_PX, Math.round(sizePx * 1.05));

  const width = Math.max(1, Math.round((drawn.width * LINE_HEIGHT_PX) / drawn.height));
  const line = createCanvas(width, LINE_HEIGHT_PX);
  line.getContext('2d').drawImage(drawn, 0, 0, width, LINE_HEIGHT_PX);
  return line;
}

export interface RecogniserInput {
  data: Float32Array;
  /** `[1, 3, 48, W]` */
  dims: [1, 3, number, number];
}

/** Pixels of a rendered line as the recogniser's input. */
export function recogniserInput(line: Canvas): RecogniserInput {
  const { width, height } = line;
  const rgba = line.getContext('2d').getImageData(0, 0, width, height).data;
  const plane = width * height;
  const data = new Float32Array(3 * plane);
  for (let pixel = 0; pixel < plane; pixel++) {
    for (let channel = 0; channel < 3; channel++) {
      data[channel * plane + pixel] = rgba[4 * pixel + (2 - channel)]! / 127.5 - 1;
    }
  }
  return { data, dims: [1, 3, height, width] };
}
