/* The yardstick of G1 and G11: parse an x-only key and verify, over and over, in plain C.
   Built against whatever libsecp256k1 the node itself has opened; no header is needed. */
#include <stddef.h>

extern int secp256k1_xonly_pubkey_parse(const void *, void *, const unsigned char *);
extern int secp256k1_schnorrsig_verify(const void *, const unsigned char *, const unsigned char *,
                                       size_t, const void *);

/* records: 32 bytes of key, 32 of message, 64 of signature each; returns how many hold */
int verify_loop(const void *context, const unsigned char *records, int count)
{
    unsigned char key[64];
    int good = 0;
    for (int i = 0; i < count; i++, records += 128)
        if (secp256k1_xonly_pubkey_parse(context, key, records))
            good += secp256k1_schnorrsig_verify(context, records + 64, records + 32, 32, key);
    return good;
}
