"""The words around a name that tell whether it is a coin's. Pure.

Compared without case, one token each, so every form of a word that counts is written out.
"""

_TRADE = """
airdrop airdrops altcoin altcoins alts appchain ath binance bitcoin bithumb blockchain blockchains bridge
btc buyback buybacks bybit cftc chain chains coin coinbase coins crypto cryptocurrencies cryptocurrency
cryptos dao daos dapp dapps defi delisted delisting delists depeg depegged depegs depositors devnet dex
dexes dexs dominance escrow etf etfs ether ethereum etp etps exploit exploiter exploits grayscale hack
hacked hackers halving hashrate hodl hodlers holders ico icos ieo inscriptions kraken l1 l2 ledger lender
liquidated liquidation liquidations liquidity listing lumens mainnet masternode masternodes meme memecoin
memecoins mempool multisig nft nfts odl okx onchain oracle oracles ordinals parachain parachains peg
relists restaking robinhood rollup rollups satoshi sec sidechain stablecoin stablecoins stake staked
stakers staking subnet subnets superchain swap swaps testnet token tokenisation tokenised tokenization
tokenized tokenomics tokens tvl unlock unlocks upbit usdc usdt validator validators vesting wallet wallets
web3 whale whales zk
"""
_BUSINESS = """
% advances attestation auditor auditors bearish bears bid bounce bounces breakout bullish bulls burn burns
candle candles ceo chart charts climb climbed climbs crash crashed crashes crater craters cto deposits dev
developer developers dip dips dive dives doubles dove droop drop dropped drops ecosystem erupts explained
extends eyes fall falls fees fell fork foundation founder founders gain gained gains halves hub inflation
interest investors jump jumped jumps lawsuit layer leap leaps leapt lose loses lost mint minted network
node nodes nosedives outperform outperforms payments perks plunge plunged plunges pop pops price prices
profit protocol quarterly rallied rallies rally rebound rebounded rebounds reclaims recover recovered
recovers redemptions remittance reserves resistance retreat retreats rips rise rises rocket rockets rose
rsi ruling sank settlement shed sheds sink sinks skid skids slid slide slides slip slipped slips slump
slumped slumps soar soared soars spike spikes sprint streak sues supply support surge surged surges swoons
takes technicals testnet trader traders trades trading treasury triples tumble tumbled tumbles
underperforms upgrade users volume weekly wilt wilts
"""
_SHARES = """
album choir concert earnings film movie orchestra resort restaurant retailer retailers sequel share
shareholder shareholders shares ski skier skiers slopes stock stocks
"""
_BESIDE = """
airdrop blockchain bridge chain chains coin coins dao delegates developers dex ecosystem etf etfs etp
foundation founder holders intents l1 l2 labs mainnet memecoin network networks price protocol relayers
rollup stablecoin stack stakers staking subnet superchain testnet token tokens trading treasury unlock
unlocks users validators vaults wallet wallets whales
"""
_BEFORE = """
altcoin altcoins blockchain buy coin coins cryptocurrency lender memecoin network protocol sell stablecoin
token tokens
"""
_MOVES = """
bounces climbs crashes craters dips dives doubles down dropped drops falls fell gains jumped jumps leaps
loses nears nosedives outperforms plunges pops rallies rebounds recovers retreats rises rockets rose sheds
sinks skids slid slides slips slumps soared soars spikes surged surges triples tumbles up
"""
_GLUE = """
a about after an and as at before by for from in into of on or over the to with
"""
_TOWARDS = """
for from like on than to versus vs
"""

#: Say that a story is about crypto.
TRADE = frozenset(_TRADE.split())
#: Say that something is priced, traded or run; enough where nothing speaks of shares or leisure.
BUSINESS = frozenset(_BUSINESS.split())
#: Speak against a coin where only `BUSINESS` speaks for it.
SHARES = frozenset(_SHARES.split())
#: Directly after a name that is an everyday word, they make it a coin's; so do `BEFORE` directly before it.
BESIDE = frozenset(_BESIDE.split())
BEFORE = frozenset(_BEFORE.split())
#: Directly after such a name they do so too, where a percentage or the trade is spoken of.
MOVES = frozenset(_MOVES.split())
#: Directly after such a name at the start of a title they make it no coin: flow into, optimism over.
GLUE = frozenset(_GLUE.split())
#: Before such a name that ends a clause they make it one, where the trade is spoken of: swaps X for Quant.
TOWARDS = frozenset(_TOWARDS.split())
#: Between the names of a list.
JOINERS = frozenset({",", ";", "&", "/", "+", "and", "or", "vs", "versus", "plus"})
#: What coins are priced in: as the second half of a pair they are no news of their own.
QUOTES = ("USDT", "USDC", "USD", "EUR", "GBP", "JPY", "KRW", "TRY", "BUSD", "FDUSD", "PERP", "BTC", "ETH")
#: Those of them that a pair is about as much: ``ETH/BTC``.
BOTH = frozenset({"BTC", "ETH"})
