"""PyPI's nostr-dvm as a NIP-90 provider of text generation; run by its own venv's Python.

`nostr_dvm_provider.py RELAY PRICE_SATS [LNBITS_URL INVOICE_KEY ADMIN_KEY]` prints one line,
`ready PUBKEY`, and serves until it is killed. It answers with the prompt in capitals.
"""

import json
import sys

from nostr_dvm.framework import DVMFramework
from nostr_dvm.tasks.generic_dvm import GenericDVM
from nostr_dvm.utils.admin_utils import AdminConfig
from nostr_dvm.utils.dvmconfig import DVMConfig
from nostr_dvm.utils.nip89_utils import NIP89Config
from nostr_sdk import Keys, Kind


def main(relay, price_sats, lnbits_url="", invoice_key="", admin_key=""):
    config = DVMConfig()
    config.PRIVATE_KEY = Keys.generate().secret_key().to_hex()
    config.IDENTIFIER = "capitals"
    config.RELAY_LIST = config.SYNC_DB_RELAY_LIST = config.ANNOUNCE_RELAY_LIST = [relay]
    config.KIND = Kind(5050)
    config.FIX_COST = float(price_sats)
    config.LNBITS_URL, config.LNBITS_INVOICE_KEY = lnbits_url, invoice_key
    config.LNBITS_ADMIN_KEY = admin_key
    admin = AdminConfig()
    admin.REBROADCAST_NIP89 = True
    admin.REBROADCAST_NIP65_RELAY_LIST = admin.UPDATE_PROFILE = False
    said = NIP89Config()
    said.DTAG, said.KIND = "capitals", Kind(5050)
    said.CONTENT = json.dumps({"name": "Capitals", "about": "", "supportsEncryption": True,
                               "acceptsNutZaps": False, "nip90Params": {}})
    dvm = GenericDVM(name="Capitals", dvm_config=config, nip89config=said, admin_config=admin,
                     options={})

    async def process(form):
        return dvm.set_options(form)["input"].upper()
    dvm.process = process
    print("ready", config.PUBLIC_KEY, flush=True)
    framework = DVMFramework()
    framework.add(dvm)
    framework.run()


main(*sys.argv[1:])
