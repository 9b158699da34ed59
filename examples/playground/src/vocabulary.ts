/** The 96 characters of the shipped models, in the order of their token ids. */
export const CHARACTERS: readonly string[] = [
  ...'\n !"#$%&\'()*+,-./0123456789:;<=>?@ABCDEFGHIJKLMNOPQRSTUVWXYZ[\\]^_`abcdefghijklmnopqrstuvwxyz{|}~',
];
