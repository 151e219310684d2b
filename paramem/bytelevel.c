#include "paramem/bytelevel.h"

/* Bytes that stand for themselves. */
static bool printable(uint32_t byte)
{
    return (byte >= 0x21 && byte <= 0x7E) || (byte >= 0xA1 && byte <= 0xAC) ||
           (byte >= 0xAE && byte <= 0xFF);
}

/* How many bytes below `byte` are not printable. */
static uint32_t rank_of(uint32_t byte)
{
    if (byte <= 0x21) {
        return byte;
    } else if (byte <= 0xA1) {
        return byte < 0x7F ? 33 : 33 + byte - 0x7F;
    }
    return byte <= 0xAD ? 67 : 68;
}

uint32_t paramem_bytelevel_letter(uint8_t byte)
{
    return printable(byte) ? byte : 0x100 + rank_of(byte);
}

/* The byte of a letter; 256: of none. */
static uint32_t byte_of(uint32_t letter)
{
    if (letter < 0x100) {
        return printable(letter) ? letter : 256;
    }
    uint32_t rank = letter - 0x100;
    if (rank < 33) {
        return rank;
    } else if (rank < 67) {
        return 0x7F + rank - 33;
    }
    return rank == 67 ? 0xAD : 256;
}

bool paramem_bytelevel_read(struct memos_bytes written, uint8_t *out, size_t *out_size)
{
    const uint8_t *at = written.data;
    size_t made = 0;
    for (size_t i = 0; i < written.size; i++) {
        uint32_t letter = at[i];
        if (letter >= 0x80) { /* letters have one or two bytes */
            if ((letter & 0xE0) != 0xC0 || i + 1 == written.size) {
                return false;
            }
            letter = (letter & 0x1F) << 6 | (at[++i] & 0x3Fu);
        }
        uint32_t byte = byte_of(letter);
        if (byte == 256) {
            return false;
        }
        out[made++] = (uint8_t)byte;
    }
    *out_size = made;
    return true;
}
