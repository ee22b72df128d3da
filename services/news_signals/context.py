"""The words around a name that tell whether it is a coin's. Pure.

Compared without case, one token each, so every form of a word that counts is written out.
"""

_TRADE = """
airdrop airdrops altcoin altcoins alts appchain ath binance bitcoin bithumb blockchain blockchains bridge
btc buyback buybacks bybit cftc chain chains coin coinbase coins crypto cryptocurrencies cryptocurrency
cryptos dao daos dapp dapps defi delisted delisting delists depeg depegged depegs depositors devnet dex
dexes dexs dominance escrow etf etfs ether ethereum etp etps exploit exploiter exploits grayscale hack
hacked hackers halving hashrate hodl hodlers holders ico icos ieo inscriptions kraken l1 l1s l2 l2s ledger
lender liquidated liquidation liquidations liquidity listing lumens mainnet masternode masternodes meme
memecoin memecoins mempool multisig nft nfts odl okx onchain oracle oracles ordinals parachain parachains
peg relists restaking robinhood rollup rollups satoshi sec sidechain stablecoin stablecoins stake staked
stakers staking subnet subnets superchain swap swaps testnet token tokenisation tokenised tokenization
tokenized tokenomics tokens tvl unlock unlocks upbit usdc usdt validator validators vesting wallet wallets
web3 whale whales zk
"""
_BUSINESS = """
% addresses advances attestation auditor auditors bearish bears bid bounce bounces breakout bullish bulls
burn burns candle candles ceo chart charts climb climbed climbs crash crashed crashes crater craters cto
deposits dev developer developers dip dips dive dives doubles dove droop drop dropped drops ecosystem erupts
explained extends eyes fall falls fees fell fork foundation founder founders gain gained gains halves hub
inflation interest investors jump jumped jumps lawsuit layer leap leaps leapt lose loses lost mint minted
network node nodes nosedives outperform outperforms payments perks plunge plunged plunges pop pops price
prices profit protocol quarterly rallied rallies rally rebound rebounded rebounds reclaims recover recovered
recovers redemptions remittance reserves resistance retreat retreats rips rise rises rocket rockets rose rsi
ruling sank settlement shed sheds sink sinks skid skids slid slide slides slip slipped slips slump slumped
slumps soar soared soars spike spikes sprint streak sues supply support surge surged surges swoons takes
technicals trader traders trades trading transactions treasury triples tumble tumbled tumbles underperforms
upgrade users volume weekly wilt wilts
"""
_CHARTS = """
bear bearish bears bottom breakout bull bullish bulls burn burns candle candles chart charts cross
divergence price resistance rsi streak supply support technicals
"""
_SHARES = """
album camera cameras choir concert consumer consumers earnings exporters film households manufacturers movie
orchestra resort restaurant retailer retailers sequel share shareholder shareholders shares ski skier skiers
slopes stock stocks survey
"""
_STATE = """
accessibility agencies agency airline airlines airport congress congressional contractor contractors
department disabilities disability drivers efficiency employees flights government governor highway highways
lawmakers motorists passengers senator senators staffers taxpayer taxpayers transit transportation wasteful
wheelchair workers
"""
_BESIDE = """
airdrop blockchain bridge chain chains coin coins dao delegates developers dex ecosystem etf etfs etp
foundation founder futures holders intents l1 l2 labs mainnet memecoin network networks perpetuals price
protocol relayers rollup stablecoin stack stakers staking subnet superchain testnet token tokens trading
treasury unlock unlocks users validators vaults wallet wallets whales
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
_PRICE = """
adds approaches bounce break breaks broke clear clears climb climbed consolidates crash crashed cross
crosses defends dip dipped double drop dump dumps erases extends eye eyes fall gain gained hit hits hold
holds hovers jump leap lose lost near plunge plunged pumps rallied rally reach reaches rebound rebounded
reclaim reclaimed reclaims regains rejected retake retakes retest retests return returns rip rips rise sank
sits skyrockets slide slip slipped slump soar spike stalls steadies sticks struggles surge surpasses swings
target targets test tests top topped tops touches trades triple tumble tumbled
"""
_HELPERS = """
again briefly can could finally is just may might now poised quickly ready set should still then will would
"""
_LEVELS = """
ath bottom breakout digits level levels moon resistance support trendline wedge
"""
_COMPOUND = """
actors airlines attack attackers attacks beverages bhd biotech corp corporation energy entertainment foods
gmbh group groups hackers health holdings hotels inc index indices industries insurance limited llc
logistics ltd malware materials motors pharma pharmaceuticals plc properties realty resources robotics
semiconductors software solar technologies therapeutics wellness
"""
_GLUE = """
a abounds about after among an and as at before between builds by ebbs evaporates fades for from grows high
in inflows into of on or outflows over persists prevails reigns returns swells the through to wanes with
"""
_TOWARDS = """
for from like on than to versus vs
"""
_OPENERS = """
a accuse add against aggregator and appchain are as ask at back beat because but by can choose dapp desert
ditch drop dump exchange for fork from has hold how if in integrate into is issuer join l1 l2 launch leave
like list marketplace new of on onto or outgrow outside over pick platform plus rival rollup s sidechain
since so startup support than that the through to toward use using versus via vs want what when where
whether while who why will with within without
"""
_MODIFIERS = """
annual bonds business charity consumers crypto earnings exports fees forwards funds futures gains gas
inflows investors losses markets news oil options outflows prices profits rates regulatory sales shares
skies stocks strategies taxes traders trades us users wages yields
"""

#: Say that a story is about crypto.
TRADE = frozenset(_TRADE.split())
#: Say that something is priced, traded or run; enough where nothing speaks of shares, leisure or offices.
BUSINESS = frozenset(_BUSINESS.split())
#: Those that are enough for a ticker that is an everyday word.
CHARTS = frozenset(_CHARTS.split())
#: Speak against a coin where only `BUSINESS` speaks for it.
SHARES = frozenset(_SHARES.split())
#: Do so too, and make more than crypto needful for tickers that are offices and laws: DOGE, DOT, ADA.
STATE = frozenset(_STATE.split())
#: Directly after a name that is an everyday word, they make it a coin's; so do `BEFORE` directly before it.
BESIDE = frozenset(_BESIDE.split())
BEFORE = frozenset(_BEFORE.split())
#: Directly after such a name they do so too, where a percentage or the trade is spoken of.
MOVES = frozenset(_MOVES.split())
#: After a ticker they do so where a price, a percentage or one of `LEVELS` follows: SOL eyes $300.
PRICE = MOVES | frozenset(_PRICE.split())
HELPERS = frozenset(_HELPERS.split())
LEVELS = frozenset(_LEVELS.split())
#: Directly after a doubtful name they make it part of another one: MOVE index, APT group, Cronos Group.
COMPOUND = frozenset(_COMPOUND.split())
#: Directly after such a name at the start of a title they make it no coin: flow into, optimism over.
GLUE = frozenset(_GLUE.split())
#: Before such a name that ends a clause they make it one, where the trade is spoken of: swaps X for Quant.
TOWARDS = frozenset(_TOWARDS.split())
#: A name that is an everyday word begins its phrase: after these, and after verbs in -s but for `MODIFIERS`.
#: After any other word it ends a phrase of its everyday sense: market maker, net flow, crypto optimism.
OPENERS = frozenset(_OPENERS.split()) | BEFORE
MODIFIERS = frozenset(_MODIFIERS.split())
#: Between the names of a list.
JOINERS = frozenset({",", ";", "&", "/", "+", "and", "or", "vs", "versus", "plus"})
#: What coins are priced in: as the second half of a pair they are no news of their own.
QUOTES = ("USDT", "USDC", "USD", "EUR", "GBP", "JPY", "KRW", "TRY", "BUSD", "FDUSD", "PERP", "BTC", "ETH")
#: Those of them that a pair is about as much: ``ETH/BTC``.
BOTH = frozenset({"BTC", "ETH"})
